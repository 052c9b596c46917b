"""The `KV` namespace of one replica: the index alone, since the engines tell what leaves their caches.

Changes are iterators that apply themselves a slice at a time and yield how many blocks that changed.
"""

from collections.abc import Iterator

from extproc.cache.frames import Frame, Operation
from extproc.cache.index import Index
from extproc.cache.slices import slices
from extproc.cache.snapshots import KvSnapshot


class Kv:
    """What lives hold as their engines tell."""

    __slots__ = ("index",)

    def __init__(self) -> None:
        self.index = Index()

    def retire(self, life: int) -> None:
        """Forget the life."""
        self.index.forget(life)

    def apply(self, frame: Frame) -> Iterator[int]:
        """The frame of an enrolled life as a change; capacities are the engine's own affair."""
        match frame.operation:
            case Operation.ADD:
                return self._add(frame.life, frame.packed)
            case Operation.REMOVE:
                return self._remove(frame.life, frame.packed)
            case Operation.CLEAR:
                return self._clear(frame.life)
            case Operation.CAPACITY | Operation.ROTATE:
                return iter(())

    def load(self, life: int, snapshot: KvSnapshot) -> Iterator[int]:
        """The snapshot of an enrolled life as a change: it replaces everything."""
        yield from self._clear(life)
        yield from self._add(life, snapshot.own)

    def _add(self, life: int, packed: bytes) -> Iterator[int]:
        for _, hashes in slices(packed):
            self.index.add(life, hashes)
            yield len(hashes)

    def _remove(self, life: int, packed: bytes) -> Iterator[int]:
        for _, hashes in slices(packed):
            self.index.remove(life, hashes)
            yield len(hashes)

    def _clear(self, life: int) -> Iterator[int]:
        self.index.forget(life)
        yield 1
