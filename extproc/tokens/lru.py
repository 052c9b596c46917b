"""A cache bounded by bytes."""

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")

OVERHEAD = 250
"""Bytes an entry takes beside its value: key, links, object headers."""


class Lru(Generic[V]):
    """Forgets what was used longest ago. Not safe between threads; its users lock."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of all entries together, `OVERHEAD` of each included."""
        self._limit = limit
        self._used = 0
        self._entries: OrderedDict[bytes, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: bytes, value: V, size: int) -> None:
        """Keep a value of `size` bytes, unless it alone is beyond the limit."""
        self._forget(self._entries.pop(key, None))
        if size + OVERHEAD > self._limit:
            return
        self._entries[key] = (value, size)
        self._used += size + OVERHEAD
        while self._used > self._limit:
            self._forget(self._entries.popitem(last=False)[1])

    def _forget(self, entry: tuple[V, int] | None) -> None:
        if entry is not None:
            self._used -= entry[1] + OVERHEAD
