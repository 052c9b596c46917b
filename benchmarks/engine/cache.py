"""The prefix cache: blocks of tokens, named by a hash chained to the block before.

As in vLLM, only full blocks are shared, a block that no request holds stays until its room is needed, the
least recently used goes first, and at least one prompt token is always computed, so the last block of a
prompt that is wholly cached counts as a miss. What is computed twice is there twice: several blocks may have
one name. A request takes the blocks of its whole answer when it starts, so it never has to be preempted.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.engine.tokens import Tokens

BlockHash = bytes


def root(adapter: str | None, salt: str | None) -> BlockHash:
    """The parent of a first block: prompts of different adapters or salts share nothing."""
    return hashlib.sha256(repr((adapter, salt)).encode()).digest()


def chain(parent: BlockHash, tokens: Tokens, block_size: int) -> list[BlockHash]:
    """Hashes of the full blocks of ``tokens``, which follow the block ``parent``."""
    hashes = []
    for start in range(0, len(tokens) - block_size + 1, block_size):
        parent = hashlib.sha256(parent + tokens[start : start + block_size].tobytes()).digest()
        hashes.append(parent)
    return hashes


@dataclass(slots=True, eq=False)
class Block:
    """One block of KV memory that has a name; another one may have the same."""

    name: BlockHash
    holders: int
    """Requests that use it."""
    computed: bool
    """False while its tokens wait for their prefill."""


@dataclass(slots=True)
class Lease:
    """The blocks that one running request holds."""

    named: list[Block]
    """Blocks that others may use too, in the order of their tokens; the first ``hits`` were there before."""
    hits: int
    private: int
    """Blocks without a name: of the answer to come and of the unfilled end."""


class BlockCache:
    """A fixed number of blocks: held by requests, idle but cached, or blank."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._num_blocks = num_blocks
        self._copies: dict[BlockHash, list[Block]] = {}
        self._idle: OrderedDict[Block, None] = OrderedDict()
        """Named blocks that nobody holds, the next to go first."""
        self.used = 0
        """Blocks held by requests."""

    @property
    def idle(self) -> int:
        """Blocks that nobody holds and that a prompt can still hit."""
        return len(self._idle)

    @property
    def usage(self) -> float:
        """Share of the blocks that requests hold, 0 to 1."""
        return self.used / self._num_blocks

    def take(
        self, hashes: Sequence[BlockHash], prompt_tokens: int, all_tokens: int
    ) -> tuple[Lease, list[BlockHash]] | None:
        """The blocks for a prompt with ``hashes`` and its answer, and the cached ones that had to go for it.

        None while there is no room.
        """
        found = self._leading_hits(hashes[: (prompt_tokens - 1) // self.block_size])
        fresh = -(-all_tokens // self.block_size) - len(found)
        awakened = [block for block in found if not block.holders]
        if fresh > self._num_blocks - self.used - len(awakened):
            return None
        for block in awakened:
            del self._idle[block]
        for block in found:
            block.holders += 1
        self.used += len(awakened)
        gone = self._make_room(fresh)
        self.used += fresh
        new = [self._name(Block(name, 1, computed=False)) for name in hashes[len(found) :]]
        return Lease(found + new, len(found), fresh - len(new)), gone

    def known(self, hashes: Iterable[BlockHash]) -> int:
        """How many of these blocks, from the first on, are computed."""
        found = self._leading_hits(hashes)
        return next((place for place, block in enumerate(found) if not block.computed), len(found))

    def computed(self, lease: Lease) -> list[range]:
        """The prompt of the lease is computed; returns which of its blocks were not before, in runs."""
        fresh = [place for place, block in enumerate(lease.named) if not block.computed]
        for place in fresh:
            lease.named[place].computed = True
        return _runs(fresh)

    def fill(self, lease: Lease, name: BlockHash) -> None:
        """An answer has filled the next block of the lease, which now has a name."""
        lease.private -= 1
        lease.named.append(self._name(Block(name, 1, computed=True)))

    def release(self, lease: Lease) -> None:
        """Give the blocks back; those that were never computed hold nothing and are blank again."""
        self.used -= lease.private
        # The deepest blocks become the oldest: a chain is of use only from its start.
        for block in reversed(lease.named):
            block.holders -= 1
            if block.holders:
                continue
            self.used -= 1
            if block.computed:
                self._idle[block] = None
            else:
                self._forget(block)

    def clear(self) -> bool:
        """Forget every block; False, with nothing done, while requests hold some."""
        if self.used:
            return False
        self._idle.clear()
        self._copies.clear()
        return True

    def _leading_hits(self, hashes: Iterable[BlockHash]) -> list[Block]:
        found = []
        for name in hashes:
            copies = self._copies.get(name)
            if copies is None:
                break
            found.append(copies[0])
        return found

    def _make_room(self, blocks: int) -> list[BlockHash]:
        blank = self._num_blocks - self.used - len(self._idle)
        gone = [self._idle.popitem(last=False)[0] for _ in range(blocks - blank)]
        for block in gone:
            self._forget(block)
        return [block.name for block in gone]

    def _name(self, block: Block) -> Block:
        self._copies.setdefault(block.name, []).append(block)
        return block

    def _forget(self, block: Block) -> None:
        copies = self._copies[block.name]
        copies.remove(block)
        if not copies:
            del self._copies[block.name]


def _runs(places: Iterable[int]) -> list[range]:
    """Ascending numbers as ranges without gaps."""
    runs: list[range] = []
    for place in places:
        if runs and runs[-1].stop == place:
            runs[-1] = range(runs[-1].start, place + 1)
        else:
            runs.append(range(place, place + 1))
    return runs
