"""The prefix cache: blocks of tokens, named by a hash chained to the block before.

As in vLLM, only full blocks are shared, a block that no request holds stays until its room is needed, the
least recently used goes first, and at least one prompt token is always computed, so the last block of a
prompt that is wholly cached counts as a miss. A request takes the blocks of its whole answer when it starts,
so it never has to be preempted.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.engine.tokens import Tokens

BlockHash = bytes


def root(adapter: str | None, salt: str | None) -> BlockHash:
    """The parent of a first block: prompts of different adapters or salts share nothing."""
    return hashlib.sha256(repr((adapter, salt)).encode()).digest()


def chain(parent: BlockHash, tokens: Tokens, block_size: int, skip: int = 0) -> list[BlockHash]:
    """Hashes of the full blocks of ``tokens`` after the first ``skip``; ``parent`` is the last of those."""
    hashes = []
    for start in range(skip * block_size, len(tokens) - block_size + 1, block_size):
        parent = hashlib.sha256(parent + tokens[start : start + block_size].tobytes()).digest()
        hashes.append(parent)
    return hashes


@dataclass(frozen=True, slots=True)
class Lease:
    """The blocks that one running request holds."""

    shared: tuple[BlockHash, ...]
    """Blocks that others may use too, in prompt order; the first ``hits`` were there before."""
    hits: int
    private: int
    """Blocks without a name: of the answer, of the unfilled end, and copies of blocks that exist."""


class BlockCache:
    """A fixed number of blocks: held by requests, idle but cached, or blank."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._num_blocks = num_blocks
        self._holders: dict[BlockHash, int] = {}
        self._idle: OrderedDict[BlockHash, None] = OrderedDict()
        self._private = 0

    @property
    def used(self) -> int:
        """Blocks held by requests."""
        return len(self._holders) + self._private

    @property
    def idle(self) -> int:
        """Blocks that nobody holds and that a prompt can still hit."""
        return len(self._idle)

    @property
    def usage(self) -> float:
        """Share of the blocks that requests hold, 0 to 1."""
        return self.used / self._num_blocks

    def take(self, hashes: Sequence[BlockHash], prompt_tokens: int, all_tokens: int) -> Lease | None:
        """The blocks for a prompt with ``hashes`` and its answer; None while there is no room."""
        hits = self._leading_hits(hashes[: (prompt_tokens - 1) // self.block_size])
        fresh = -(-all_tokens // self.block_size) - hits
        idle_hits = sum(block in self._idle for block in hashes[:hits])
        if fresh > self._num_blocks - self.used - idle_hits:
            return None
        for block in hashes[:hits]:
            self._idle.pop(block, None)
            self._holders[block] = self._holders.get(block, 0) + 1
        self._make_room(fresh)
        new = [block for block in hashes[hits:] if block not in self._holders and block not in self._idle]
        self._holders.update(dict.fromkeys(new, 1))
        private = fresh - len(new)
        self._private += private
        return Lease((*hashes[:hits], *new), hits, private)

    def release(self, lease: Lease, computed: bool, answer: Sequence[BlockHash] = ()) -> None:
        """Give the blocks back.

        ``computed`` is False for a request whose prefill did not end: its own blocks hold nothing. ``answer``
        are the hashes that the generated tokens filled: they stay to be hit by the next turn.
        """
        self._private -= lease.private
        # The deepest blocks become the oldest: a chain is of use only from its start.
        for block in reversed(answer[: lease.private]):
            if block not in self._holders:
                self._idle[block] = None
        for position, block in reversed(tuple(enumerate(lease.shared))):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                del self._holders[block]
                if computed or position < lease.hits:
                    self._idle[block] = None

    def _leading_hits(self, hashes: Sequence[BlockHash]) -> int:
        for position, block in enumerate(hashes):
            if block not in self._holders and block not in self._idle:
                return position
        return len(hashes)

    def _make_room(self, blocks: int) -> None:
        blank = self._num_blocks - self.used - len(self._idle)
        for _ in range(blocks - blank):
            self._idle.popitem(last=False)
