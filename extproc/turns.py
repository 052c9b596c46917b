"""Whose turn it is among equals, so that workers which see the same do not all choose the same.

A burst reaches all workers before any of them has heard of another's choices. Among endpoints that are equal
in everything, each worker then begins to count at a place of its own: the workers share out one circle, which
turns as time goes by. So the first choices of N workers differ, and so do their second ones. A single worker
goes round the circle as it likes; nobody has a favourite for long.
"""

from collections.abc import Callable, Collection

import xxhash

_WINDOW_S = 0.25
"""How long the circle stands still: many times longer than statements, and the requests of a burst, are on
their way."""
_LOOK_S = 1.0
"""How often it is looked who the workers are."""


class Turns:
    """The place of one worker on the circle."""

    def __init__(
        self, instance: str, peers: Callable[[], Collection[str]], clock: Callable[[], float]
    ) -> None:
        """`peers` are the other workers; `clock` gives seconds since 1970, about the same in all workers."""
        self._instance = instance
        self._peers = peers
        self._clock = clock
        self._looked = float("-inf")
        self._share = 0.0

    def now(self) -> float:
        """Where to begin counting, as a share of the endpoints: 0 up to but not including 1."""
        at = self._clock()
        if at - self._looked >= _LOOK_S or at < self._looked:
            self._looked = at
            workers = sorted({*self._peers(), self._instance})
            self._share = workers.index(self._instance) / len(workers)
        return (_turned(int(at / _WINDOW_S)) + self._share) % 1.0


def _turned(window: int) -> float:
    """How far the circle has turned in a window: evenly spread, and the same everywhere."""
    return xxhash.xxh3_64_intdigest(window.to_bytes(8, "little")) / 2**64
