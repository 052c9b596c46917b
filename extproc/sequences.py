"""Which entries of each producer have been read: finds what is missing and what comes twice. Pure."""

from enum import Enum, auto


class Turn(Enum):
    """How an entry follows what was read of its producer."""

    NEXT = auto()
    AGAIN = auto()
    """It was read before."""
    GAP = auto()
    """It is new, and others before it were missed."""


_FORGET_S = 600.0


class Sequences:
    """The last sequence number of each producer."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, float]] = {}

    def take(self, producer: str, sequence: int, at: float) -> Turn:
        """Read an entry at a time (monotonic seconds). The first one of a producer misses nothing: what came
        before it is in the snapshots."""
        last, _ = self._last.get(producer, (sequence - 1, at))
        if sequence <= last:
            return Turn.AGAIN
        self._last[producer] = (sequence, at)
        return Turn.NEXT if sequence == last + 1 else Turn.GAP

    def forget(self, at: float) -> None:
        """Drop producers that have published nothing for ten minutes; to be called now and then."""
        until = at - _FORGET_S
        self._last = {name: last for name, last in self._last.items() if last[1] >= until}
