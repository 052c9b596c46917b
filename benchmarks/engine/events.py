"""KV events as vLLM 0.32 publishes them: what happened to the blocks of one rank, step by step.

A batch of events is ``[unix seconds, [events], rank]`` in msgpack; an event is a map with ``type`` in front.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from benchmarks.engine.cache import BlockHash
from benchmarks.engine.models import Adapter
from benchmarks.engine.tokens import Tokens

_MEDIUM = "GPU"
_LOW_64_BITS = slice(-8, None)


class BlockStored(msgspec.Struct, frozen=True, tag=True):
    """Blocks of one prompt or answer, one after another, that can be hit from now on."""

    block_hashes: list[int]
    parent_block_hash: int | None
    """Of the block before; None for the first block of a prompt."""
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str
    lora_name: str | None
    extra_keys: list[list[str] | None]
    """What a block's hash depends on besides tokens, untagged: the adapter, and the salt in a first block."""
    group_idx: int = 0
    kv_cache_spec_kind: str = "full_attention"


class BlockRemoved(msgspec.Struct, frozen=True, tag=True):
    """One block that had to go; another with its hash may still be there."""

    block_hashes: list[int]
    medium: str
    group_idx: int = 0


class AllBlocksCleared(msgspec.Struct, frozen=True, tag=True):
    """No block can be hit any more."""


Event: TypeAlias = BlockStored | BlockRemoved | AllBlocksCleared


class EventBatch(msgspec.Struct, frozen=True, array_like=True):
    """The events of one step."""

    ts: float
    """Unix seconds."""
    events: list[Event]
    data_parallel_rank: int


@dataclass(frozen=True, slots=True)
class Chain:
    """The tokens of one request in blocks, and what their hashes depend on besides."""

    hashes: Sequence[BlockHash]
    block_size: int
    adapter: Adapter | None
    salt: str | None

    def stored(self, places: range, tokens: Tokens) -> BlockStored:
        """The blocks at ``places``, which hold ``tokens``."""
        adapter = self.adapter
        return BlockStored(
            block_hashes=[_number(name) for name in self.hashes[places.start : places.stop]],
            parent_block_hash=_number(self.hashes[places.start - 1]) if places.start else None,
            token_ids=tokens.tolist(),
            block_size=self.block_size,
            lora_id=None if adapter is None else adapter.number,
            medium=_MEDIUM,
            lora_name=None if adapter is None else adapter.name,
            extra_keys=[self._extra_keys(place) for place in places],
        )

    def _extra_keys(self, place: int) -> list[str] | None:
        keys = [] if self.adapter is None else [self.adapter.name]
        if place == 0 and self.salt is not None:
            keys.append(self.salt)
        return keys or None


def removed(names: Iterable[BlockHash]) -> list[BlockRemoved]:
    """One event for each block that had to go."""
    return [BlockRemoved([_number(name)], _MEDIUM) for name in names]


class EventLog:
    """Numbers the batches of one publisher from 0 and keeps the last of them for replay."""

    def __init__(self, rank: int, keep: int) -> None:
        self._rank = rank
        self._next = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=keep)
        self._encode = msgspec.msgpack.Encoder().encode

    def append(self, now: float, events: list[Event]) -> tuple[int, bytes]:
        """The number of this batch and its bytes."""
        entry = self._next, self._encode(EventBatch(now, events, self._rank))
        self._next += 1
        self._kept.append(entry)
        return entry

    def since(self, number: int) -> list[tuple[int, bytes]]:
        """The batches from ``number`` on that are kept; older ones are gone without a word."""
        return [entry for entry in self._kept if entry[0] >= number]


def _number(name: BlockHash) -> int:
    return int.from_bytes(name[_LOW_64_BITS], "big")
