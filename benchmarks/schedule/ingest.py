"""KV events as vLLM 0.32 sends them -> changes of the index, in processor time."""

import time
from collections.abc import Iterator
from random import Random
from statistics import median

import msgspec

from benchmarks.engine.events import BlockRemoved, BlockStored, Event, EventBatch
from benchmarks.schedule.apart import Line
from benchmarks.schedule.prompts import BLOCK_TOKENS
from benchmarks.schedule.report import IngestRow
from benchmarks.schedule.scene import SECRET
from extproc.collect.kv import events
from extproc.collect.kv.ledger import Ledger

_PROMPT_BLOCKS = 64
"""Blocks that one event stores: vLLM tells those of a prefill together."""


def ingest(_line: Line, blocks: int, per_batch: int, passes: int) -> IngestRow:
    """So many blocks stored, and as many evicted later, in batches of so many changes (at least 64)."""
    rates = []
    for number in range(passes):
        payloads = list(_payloads(blocks, per_batch, Random(number)))
        ledger = Ledger(1, SECRET)
        began = time.process_time()
        count = 0
        for payload in payloads:
            count += ledger.apply(events.decode(payload).events)
            ledger.take()
        rates.append(count / (time.process_time() - began))
    return IngestRow(per_batch, count, round(median(rates)))


def _payloads(blocks: int, per_batch: int, rng: Random) -> Iterator[bytes]:
    """Half of what each batch is about is stored; as much leaves, block by block, once the cache is full."""
    encode = msgspec.msgpack.Encoder().encode
    held: list[int] = []
    told: list[Event] = []
    size = 0
    for _ in range(0, blocks, _PROMPT_BLOCKS):
        stored = _stored(rng)
        told.append(stored)
        held += stored.block_hashes
        leaving, held = held[: max(0, len(held) - blocks // 2)], held[max(0, len(held) - blocks // 2) :]
        told += [BlockRemoved([name], "GPU") for name in leaving]
        size += _PROMPT_BLOCKS + len(leaving)
        if size >= per_batch:
            yield encode(EventBatch(time.time(), told, 0))
            told, size = [], 0
    if told:
        yield encode(EventBatch(time.time(), told, 0))


def _stored(rng: Random) -> BlockStored:
    return BlockStored(
        block_hashes=[rng.getrandbits(64) for _ in range(_PROMPT_BLOCKS)],
        parent_block_hash=None,
        token_ids=[rng.getrandbits(17) for _ in range(_PROMPT_BLOCKS * BLOCK_TOKENS)],
        block_size=BLOCK_TOKENS,
        lora_id=None,
        medium="GPU",
        lora_name=None,
        extra_keys=[None] * _PROMPT_BLOCKS,
    )
