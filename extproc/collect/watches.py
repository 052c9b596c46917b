"""Which pods are watched right now: those that are ours, each as the configuration describes it."""

import asyncio
from collections.abc import Callable, Collection, Mapping

from extproc.cache.capacity import capacity_bytes
from extproc.collect.observer import Observer
from extproc.collect.sites import Site, sites
from extproc.collect.watch import Watch
from extproc.state.snapshot import EMPTY, Snapshot


class Sites:
    """The sites of the configuration in force."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._read = EMPTY
        self._sites: Mapping[str, Site] = {}

    def __call__(self) -> Mapping[str, Site]:
        """By key of the pod; the same object as long as nothing changed."""
        snapshot = self._snapshot()
        if snapshot is not self._read:
            self._read, self._sites = snapshot, sites(snapshot)
        return self._sites


class Watches:
    """Runs a watch for each pod that is ours."""

    def __init__(
        self,
        sites: Callable[[], Mapping[str, Site]],
        watch: Callable[[Site], Watch],
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Watches are tasks of `tasks`."""
        self._sites = sites
        self._watch = watch
        self._tasks = tasks
        self._running: dict[str, tuple[Watch, asyncio.Task[None]]] = {}

    @property
    def observers(self) -> list[Observer]:
        """What is known of each watched pod."""
        return [watch.observer for watch, _ in self._running.values()]

    def adjust(self, held: Collection[str]) -> None:
        """Watch exactly the pods `held`; one that is reached or spoken to in another way is begun anew."""
        known = self._sites()
        wanted = {pod: known[pod] for pod in held if pod in known}
        for pod, (watch, task) in list(self._running.items()):
            if wanted.get(pod) != watch.observer.site:
                task.cancel()
                del self._running[pod]
        for pod, site in wanted.items():
            if pod not in self._running:
                watch = self._watch(site)
                self._running[pod] = watch, self._tasks.create_task(watch.run())

    def capacities(self) -> dict[int, int]:
        """Every life of an engine that is watched, with the bytes of prompts that it can hold."""
        found = {}
        for observer in self.observers:
            lives = observer.lives()
            for endpoint in observer.site.endpoints:
                if endpoint.key in lives:
                    found[lives[endpoint.key]] = capacity_bytes(observer.capacity_tokens(endpoint))
        return found
