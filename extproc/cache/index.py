"""Block hash to the lives that hold the block, as a bitmask; and how far along a chain each life holds it."""

from collections.abc import Iterable, Sequence

from extproc.cache.slots import Slots

_SHARDS = 1024
_LOW = _SHARDS - 1
_FEW = 4
"""So many lives are looked up by themselves."""
_SCRUB = 1000
"""Entries after which a step of scrubbing ends: some 0.1 ms."""


class Index:
    """Who holds which block.

    A dict of so many entries that grows stops everything (235 ms at 2.8 M entries), so there are 1024 of
    them, told apart by the low bits of the hash. They hold ints alone, which keeps them out of the garbage
    collector's sight.
    """

    __slots__ = ("_next", "_scrubbing", "_shards", "_slots")

    def __init__(self) -> None:
        self._shards: list[dict[int, int]] = [{} for _ in range(_SHARDS)]
        self._slots = Slots()
        self._scrubbing = 0
        """Bits that the scrub under way takes out."""
        self._next = 0
        """The shard that it looks at next."""

    def __len__(self) -> int:
        """Distinct blocks, those of lives that are gone and not yet scrubbed included."""
        return sum(map(len, self._shards))

    def add(self, life: int, hashes: Iterable[int]) -> None:
        """The life holds these blocks."""
        bit = self._slots.claim(life)
        shards = self._shards
        for block in hashes:
            shard = shards[block & _LOW]
            held = shard.get(block)
            # One object for all blocks that only this life holds, which most are: 32 bytes less for each.
            shard[block] = bit if held is None else held | bit

    def remove(self, life: int, hashes: Iterable[int]) -> None:
        """The life does not hold these blocks."""
        bit = self._slots.bit(life)
        shards = self._shards
        for block in hashes:
            shard = shards[block & _LOW]
            held = shard.get(block, 0)
            if held == bit:
                shard.pop(block, None)
            elif held & bit:
                shard[block] = held ^ bit

    def forget(self, life: int) -> None:
        """The life holds nothing, at once; `scrub` then takes its traces out."""
        self._slots.release(life)

    def scrub(self) -> bool:
        """Clean a few shards of the traces of forgotten lives; True while there is more to clean."""
        if not self._scrubbing:
            self._scrubbing = self._slots.stale
        seen = 0
        while self._scrubbing and self._next < _SHARDS and seen < _SCRUB:
            seen += self._scrub(self._shards[self._next])
            self._next += 1
        if self._next == _SHARDS:
            self._slots.clean(self._scrubbing)
            self._scrubbing = self._next = 0
        return self._slots.stale != 0

    def matches(self, hashes: Sequence[int], among: int | None = None) -> list[tuple[int, int]]:
        """Who holds the chain how far: (depth, mask of who holds the first `depth` blocks), ever deeper.

        `among` is a mask of those that matter; None: all.

        Assumes that who holds a block holds all blocks before it, and so looks at O(D log n) of n blocks,
        where D is the number of different depths. That holds for what workers learn, and for engines that
        evict the end of a chain first. Where it does not, the depth is never less than the true one, and
        the block at its end is held.
        """
        if not hashes:
            return []
        found = []
        at, last = 0, len(hashes) - 1
        mask = self._holders(hashes[0]) & (self._slots.live if among is None else among)
        while mask:
            at = self._reach(hashes, at, mask)
            found.append((at + 1, mask))
            if at == last:
                break
            at += 1
            mask &= self._holders(hashes[at])
        return found

    def depths(self, hashes: Sequence[int], lives: Sequence[int]) -> list[int]:
        """Blocks from the start of the chain that each of the lives holds, as `matches` tells."""
        found: dict[int, int] = {}
        # With few that matter there are few breakpoints to find.
        reaches = self.matches(hashes, self._slots.mask(lives) if len(lives) <= _FEW else None)
        for at, (depth, mask) in enumerate(reaches):
            deeper = reaches[at + 1][1] if at + 1 < len(reaches) else 0
            for life in self._slots.lives(mask ^ deeper):
                found[life] = depth
        if not found:
            return [0] * len(lives)
        depth_of = found.get
        return [depth_of(life, 0) for life in lives]

    def _holders(self, block: int) -> int:
        return self._shards[block & _LOW].get(block, 0)

    def _reach(self, hashes: Sequence[int], at: int, mask: int) -> int:
        """The last position found, from `at` on, whose block all of the mask hold; they hold that at `at`."""
        shards = self._shards
        end = len(hashes)
        stride = 1
        while at + stride < end:
            block = hashes[at + stride]
            if shards[block & _LOW].get(block, 0) & mask == mask:
                at += stride
                stride *= 2
            else:
                end = at + stride
        while end - at > 1:
            middle = (at + end) // 2
            block = hashes[middle]
            if shards[block & _LOW].get(block, 0) & mask == mask:
                at = middle
            else:
                end = middle
        return at

    def _scrub(self, shard: dict[int, int]) -> int:
        seen = len(shard)
        stale = self._scrubbing
        for block in [block for block, held in shard.items() if held & stale]:
            kept = shard[block] & ~stale
            if kept:
                shard[block] = kept
            else:
                del shard[block]
        return seen
