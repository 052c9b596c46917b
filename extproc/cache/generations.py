"""What one life holds as its placements tell: bounded by its capacity, the least recently used leaves first.

New and used blocks are in the young generation. Once that covers half of the capacity it becomes the old
one, and what was old and not used since leaves. That happens when a frame says so: the first worker to see
that it is full tells all. Were it left to each of them, they would drift apart, since each applies its own
placements before those of the others; so they meet again with every generation.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from extproc.cache.chain import block_bytes
from extproc.cache.frames import packed
from extproc.cache.snapshots import PrefixSnapshot

_NUMBERS = 2**64


class Generations:
    """Blocks of one life in the `PREFIX` namespace.

    Growing, a dict of 22,000 blocks stops everything for 1 ms, one of 87,000 for 4.5 ms. Half of a cache of
    500,000 tokens has 16,000 blocks where all prompts are short, and a quarter of that where they are long.
    """

    __slots__ = ("_leaving", "_old", "_young", "capacity", "number", "young_bytes")

    def __init__(self, capacity: int, number: int = 0) -> None:
        # Dicts, because the garbage collector looks into every set but into no dict of ints and None.
        self._young: dict[int, None] = {}
        self._old: dict[int, None] = {}
        self._leaving: list[int] = []
        self.capacity = capacity
        """Bytes of prompts."""
        self.number = number
        """Of the young generation, u64; after the last comes the first."""
        self.young_bytes = 0
        """Bytes of prompts that the young generation covers."""

    def __contains__(self, block: int) -> bool:
        return block in self._young or block in self._old

    def news(self, chain: Sequence[int]) -> int | None:
        """Position of the first block that is not young; None where all are.

        Looks at O(log n) of n blocks: a block is used together with all before it, so after one that is not
        young none is. Where two workers disagreed about when a generation began, old blocks between young
        ones may be passed over: they are learnt again in the next generation.
        """
        young = self._young
        if chain and chain[0] not in young:
            return 0
        first = bisect_left(chain, True, key=lambda block: block not in young)
        return first if first < len(chain) else None

    def add(self, first: int, hashes: Iterable[int]) -> None:
        """These blocks, from position `first` of their chain on, are held and were used just now."""
        young = self._young
        for position, block in enumerate(hashes, first):
            if block not in young:
                young[block] = None
                self.young_bytes += block_bytes(position)

    def remove(self, first: int, hashes: Iterable[int]) -> None:
        """These blocks, from position `first` of their chain on, are not held."""
        for position, block in enumerate(hashes, first):
            if block in self._young:
                del self._young[block]
                self.young_bytes -= block_bytes(position)
            self._old.pop(block, None)

    @property
    def full(self) -> bool:
        """Whether it is time for generation `following`."""
        return 2 * self.young_bytes >= self.capacity

    @property
    def following(self) -> int:
        """Number of the next generation."""
        return (self.number + 1) % _NUMBERS

    def rotate(self, number: int) -> None:
        """Start the generation of that number, unless it was started already."""
        if not 0 < (number - self.number) % _NUMBERS < _NUMBERS // 2:
            return
        self.number = number
        self._leaving += self._old
        self._old = self._young
        self._young = {}
        self.young_bytes = 0

    def supersede(self, former: "Generations") -> None:
        """Take the place of what the life held before: of that, what is not in here leaves."""
        self._leaving += former._leaving
        self._leaving += former._old
        self._leaving += former._young

    def leave(self, count: int) -> list[int] | None:
        """Of the next `count` blocks that are left behind, those not held; None when there are none.

        The last come first, so that children leave before their parents.
        """
        if not self._leaving:
            return None
        leaving = self._leaving[-count:]
        del self._leaving[-count:]
        return [block for block in leaving if block not in self]

    def load_old(self, hashes: Iterable[int]) -> None:
        """Blocks of the old generation of a snapshot."""
        self._old.update(dict.fromkeys(hashes))

    def load_young(self, hashes: Iterable[int]) -> None:
        """Blocks of the young generation of a snapshot; `young_bytes` is set apart."""
        self._young.update(dict.fromkeys(hashes))

    def snapshot(self, position: str) -> PrefixSnapshot:
        """All of it, as of that position on the cache stream."""
        young, old = packed(list(self._young)), packed(list(self._old))
        return PrefixSnapshot(position, self.capacity, young, self.young_bytes, old, self.number)
