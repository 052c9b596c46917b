"""The data-parallel ranks of one engine: each a batch with a cache of its own, behind one API server."""

from collections.abc import Sequence

from benchmarks.engine.families import Families
from benchmarks.engine.frontend import FrontendMetrics
from benchmarks.engine.runtime import Clock, Publish, Runtime
from benchmarks.engine.settings import EngineSettings


class Ranks:
    """The ranks, which sleep, pause and forget together."""

    def __init__(
        self, settings: EngineSettings, clock: Clock, wall: Clock, publishes: Sequence[Publish] = ()
    ) -> None:
        """``publishes`` take the KV events, one of each rank; there are none without."""
        self._families = Families()
        self.frontend = FrontendMetrics(self._families, settings, wall)
        numbers = range(settings.data_parallel_size)
        self.runtimes = [
            Runtime(
                settings, rank, self._families, self.frontend, clock, publishes[rank] if publishes else None
            )
            for rank in numbers
        ]
        self.is_paused = False

    def __len__(self) -> int:
        return len(self.runtimes)

    @property
    def running(self) -> int:
        """Requests being computed."""
        return sum(runtime.batch.running for runtime in self.runtimes)

    @property
    def waiting(self) -> int:
        """Requests in the queues."""
        return sum(runtime.batch.waiting for runtime in self.runtimes)

    @property
    def kv_usage(self) -> float:
        """Share of all KV blocks that requests hold, 0 to 1."""
        return sum(runtime.batch.blocks.usage for runtime in self.runtimes) / len(self)

    def least_loaded(self) -> Runtime:
        """The rank with the fewest requests; the first of several."""
        return min(self.runtimes, key=lambda runtime: runtime.batch.running + runtime.batch.waiting)

    def render(self) -> bytes:
        """The exposition, as ``/metrics`` answers it."""
        return self._families.render()

    def pause(self) -> None:
        """Start nothing until `resume`; what runs is computed to its end."""
        self.is_paused = True
        for runtime in self.runtimes:
            runtime.pause()

    def resume(self) -> None:
        """Start again what waits."""
        self.is_paused = False
        for runtime in self.runtimes:
            runtime.resume()

    def sleep(self, level: int) -> None:
        """Pause, and from level 1 on forget what is cached on ranks where nothing runs."""
        self.pause()
        for runtime in self.runtimes:
            runtime.metrics.sleep(level)
            if level:
                runtime.batch.clear_cache()

    def wake_up(self) -> None:
        """End a sleep, and a pause with it, as in vLLM."""
        for runtime in self.runtimes:
            runtime.metrics.sleep(None)
        self.resume()

    def clear_caches(self) -> bool:
        """Forget every cached block; False if some rank runs requests and keeps its own."""
        cleared = [runtime.batch.clear_cache() for runtime in self.runtimes]
        return all(cleared)

    def close(self) -> None:
        """Stop the timers."""
        for runtime in self.runtimes:
            runtime.close()
