"""What the other workers state they have in flight. Pure."""

from collections.abc import Callable, Collection, Set

from extproc.state.live import InFlight, Load

NOTHING = Load(0, 0)


class Peers:
    """The newest statement of each other worker, put together from whole and partial ones."""

    def __init__(self, add: Callable[[str, int, int], object]) -> None:
        """`add` is told of every difference: endpoint key, requests and tokens more (or less) than before."""
        self._add = add
        self._stated: dict[str, dict[str, Load]] = {}
        self._heard: dict[str, float] = {}

    def __len__(self) -> int:
        """Workers that have requests in flight."""
        return len(self._stated)

    @property
    def instances(self) -> Collection[str]:
        """Workers that were heard lately, idle ones included."""
        return self._heard.keys()

    def absorb(self, statement: InFlight, at: float) -> None:
        """Take what a worker states, heard at a time (monotonic seconds)."""
        before = self._stated.get(statement.instance, {})
        touched: Set[str]
        named = {key: load for key, load in statement.loads.items() if load.requests > 0}
        if statement.whole:
            after, touched = named, before.keys() | named.keys()
        else:
            kept = {key: load for key, load in before.items() if key not in statement.loads}
            after, touched = kept | named, statement.loads.keys()
        self._heard[statement.instance] = at
        self._replace(statement.instance, before, after, touched)

    def forget(self, until: float) -> None:
        """Drop what workers stated that were last heard before a time."""
        for instance in [name for name, heard in self._heard.items() if heard < until]:
            del self._heard[instance]
            before = self._stated.get(instance, {})
            self._replace(instance, before, {}, before.keys())

    def _replace(
        self, instance: str, before: dict[str, Load], after: dict[str, Load], touched: Set[str]
    ) -> None:
        if after:
            self._stated[instance] = after
        else:
            self._stated.pop(instance, None)
        for key in touched:
            old, new = before.get(key, NOTHING), after.get(key, NOTHING)
            if old != new:
                self._add(key, new.requests - old.requests, new.tokens - old.tokens)
