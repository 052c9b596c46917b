"""The `PREFIX` namespace of one replica: generations per life, and the index over all of them.

Changes are iterators that apply themselves a slice at a time and yield how many blocks that changed.
"""

from collections.abc import Iterator

from extproc.cache.frames import Frame, Operation
from extproc.cache.generations import Generations
from extproc.cache.index import Index
from extproc.cache.slices import SLICE, slices
from extproc.cache.snapshots import PrefixSnapshot


class Prefix:
    """What lives hold as their placements tell."""

    __slots__ = ("_lives", "index")

    def __init__(self) -> None:
        self._lives: dict[int, Generations] = {}
        self.index = Index()

    def enroll(self, life: int, capacity_bytes: int) -> None:
        """Start with nothing."""
        self._lives[life] = Generations(capacity_bytes)

    def retire(self, life: int) -> None:
        """Forget the life."""
        del self._lives[life]
        self.index.forget(life)

    def generations(self, life: int) -> Generations:
        """What an enrolled life holds."""
        return self._lives[life]

    def apply(self, frame: Frame) -> Iterator[int]:
        """The frame of an enrolled life as a change."""
        match frame.operation:
            case Operation.ADD:
                return self._add(frame)
            case Operation.REMOVE:
                return self._remove(frame)
            case Operation.CLEAR:
                return self._clear(frame.life)
            case Operation.CAPACITY:
                return self._resize(frame.life, frame.numbers()[0])
            case Operation.ROTATE:
                return self._rotate(frame.life, frame.numbers()[0])

    def load(self, life: int, snapshot: PrefixSnapshot) -> Iterator[int]:
        """The snapshot of an enrolled life as a change: it replaces everything.

        What is held before and after is held all the time.
        """
        generations = Generations(snapshot.capacity, snapshot.generation)
        for _, hashes in slices(snapshot.old):
            generations.load_old(hashes)
            self.index.add(life, hashes)
            yield len(hashes)
        for _, hashes in slices(snapshot.young):
            generations.load_young(hashes)
            self.index.add(life, hashes)
            yield len(hashes)
        generations.young_bytes = snapshot.young_bytes
        yield from self._replace(life, generations)

    def _add(self, frame: Frame) -> Iterator[int]:
        generations = self._lives[frame.life]
        for at, hashes in slices(frame.packed):
            generations.add(frame.first + at, hashes)
            self.index.add(frame.life, hashes)
            yield len(hashes)

    def _remove(self, frame: Frame) -> Iterator[int]:
        generations = self._lives[frame.life]
        for at, hashes in slices(frame.packed):
            generations.remove(frame.first + at, hashes)
            self.index.remove(frame.life, hashes)
            yield len(hashes)

    def _clear(self, life: int) -> Iterator[int]:
        former = self._lives[life]
        yield from self._replace(life, Generations(former.capacity, former.number))

    def _rotate(self, life: int, number: int) -> Iterator[int]:
        generations = self._lives[life]
        generations.rotate(number)
        yield from self._leave(life, generations)

    def _replace(self, life: int, generations: Generations) -> Iterator[int]:
        generations.supersede(self._lives[life])
        self._lives[life] = generations
        yield from self._leave(life, generations)

    def _leave(self, life: int, generations: Generations) -> Iterator[int]:
        while (left := generations.leave(SLICE)) is not None:
            self.index.remove(life, left)
            yield SLICE

    def _resize(self, life: int, capacity_bytes: int) -> Iterator[int]:
        self._lives[life].capacity = capacity_bytes
        yield 1
