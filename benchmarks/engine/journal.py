"""The last requests received, byte for byte, and how each ended."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

KEPT_BYTES = 64 * 1024 * 1024
"""Bodies kept in all; older requests go first."""


class Outcome(StrEnum):
    """How a request ended."""

    OPEN = "open"
    FINISHED = "finished"
    """The whole answer was written, an error included."""
    ABORTED = "aborted"
    """The client went away, or the engine stopped, before the answer was complete."""
    RESET = "reset"
    """The engine reset the connection on purpose."""


@dataclass(slots=True)
class Received:
    """One request as it arrived."""

    number: int
    """Counts from 1 in order of arrival."""
    method: str
    path: str
    """With the query."""
    headers: tuple[tuple[str, str], ...]
    body: bytes
    outcome: Outcome = Outcome.OPEN
    status: int | None = None
    """Of the answer; None before its headers are sent."""
    rank: int | None = None
    """The data-parallel rank that computed it; None if none did."""

    def header(self, name: str) -> str | None:
        """The first header of this name, whatever its case."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)


class Journal:
    """Keeps the last ``capacity`` requests and counts all."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: deque[Received] = deque()
        self._bytes = 0
        self._ended: Counter[Outcome] = Counter()
        self.received = 0

    def __iter__(self) -> Iterator[Received]:
        return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def open(self, method: str, path: str, headers: tuple[tuple[str, str], ...], body: bytes) -> Received:
        """Note a request; `close` says how it ended."""
        self.received += 1
        entry = Received(self.received, method, path, headers, body)
        self._kept.append(entry)
        self._bytes += len(body)
        while len(self._kept) > self._capacity or self._bytes > KEPT_BYTES:
            self._bytes -= len(self._kept.popleft().body)
        return entry

    def close(self, entry: Received, outcome: Outcome) -> None:
        """The first outcome stands."""
        if entry.outcome is Outcome.OPEN:
            entry.outcome = outcome
            self._ended[outcome] += 1

    def count(self, outcome: Outcome) -> int:
        """Requests that ended so, or are open, since the engine started."""
        if outcome is Outcome.OPEN:
            return self.received - self._ended.total()
        return self._ended[outcome]
