"""What events tell is checked in ``test_batch``, with the cache that they tell of."""

from array import array
from pathlib import Path

import msgspec
import pytest

from benchmarks.engine.cache import chain, root
from benchmarks.engine.events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    Chain,
    Event,
    EventBatch,
    EventLog,
    removed,
)
from benchmarks.engine.models import Adapter

CAPTURED = sorted((Path(__file__).parent / "captures" / "kv-events").glob("*.msgpack"))
TOKENS = array("I", range(96))
SQL = Adapter("sql", 2)


def a_chain(adapter: Adapter | None = None, salt: str | None = None) -> Chain:
    return Chain(chain(root(adapter and adapter.name, salt), TOKENS, 32), 32, adapter, salt)


def encoded(*events: Event) -> bytes:
    return EventLog(0, 10).append(1795367721.5, list(events))[1]


def plain_shape(value: object) -> object:
    """Names, order, nesting and types; of lists of one type only that type."""
    if isinstance(value, dict):
        return [(key, plain_shape(item)) for key, item in value.items()]
    if isinstance(value, list):
        kinds = [plain_shape(item) for item in value]
        return [kinds[0]] if kinds and all(kind == kinds[0] for kind in kinds) else kinds
    return type(value).__name__


def test_there_are_captures() -> None:
    assert len(CAPTURED) == 7


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_captured_batches_decode_and_come_out_byte_for_byte(path: Path) -> None:
    raw = path.read_bytes()
    batch = msgspec.msgpack.decode(raw, type=EventBatch)
    assert batch.events
    assert msgspec.msgpack.encode(batch) == raw


@pytest.mark.parametrize(
    ("capture", "ours"),
    [
        (0, [a_chain().stored(range(0, 3), TOKENS)]),
        (1, [a_chain().stored(range(2, 3), TOKENS[64:])]),
        (3, [a_chain(salt="tenant-7").stored(range(0, 3), TOKENS)]),
        (4, [a_chain(SQL).stored(range(0, 3), TOKENS)]),
        (5, [AllBlocksCleared(), a_chain().stored(range(0, 3), TOKENS)]),
    ],
)
def test_our_batches_have_the_shape_of_captured_ones(capture: int, ours: list[Event]) -> None:
    theirs = msgspec.msgpack.decode(CAPTURED[capture].read_bytes())
    assert plain_shape(msgspec.msgpack.decode(encoded(*ours))) == plain_shape(theirs)


def test_a_hash_is_the_low_64_bits_and_links_to_the_block_before() -> None:
    first, second = a_chain().stored(range(0, 1), TOKENS), a_chain().stored(range(1, 3), TOKENS)
    names = a_chain().hashes
    assert first.parent_block_hash is None
    assert first.block_hashes == [int.from_bytes(names[0], "big") % 2**64] == [second.parent_block_hash]
    assert second.block_hashes == [int.from_bytes(name, "big") % 2**64 for name in names[1:]]


def test_a_salt_is_a_key_of_the_first_block_only_and_comes_after_the_adapter() -> None:
    assert a_chain(SQL, "s").stored(range(0, 3), TOKENS).extra_keys == [["sql", "s"], ["sql"], ["sql"]]
    assert a_chain(SQL, "s").stored(range(1, 2), TOKENS).extra_keys == [["sql"]]
    assert a_chain(None, "s").stored(range(0, 2), TOKENS).extra_keys == [["s"], None]


def test_each_removed_block_is_an_event() -> None:
    names = a_chain().hashes[:2]
    events = [BlockRemoved([int.from_bytes(name[-8:], "big")], "GPU") for name in names]
    assert removed(names) == events
    assert msgspec.msgpack.decode(encoded(events[0]))[1] == [
        {
            "type": "BlockRemoved",
            "block_hashes": events[0].block_hashes,
            "medium": "GPU",
            "group_idx": 0,
        }
    ]


def test_batches_are_numbered_from_0_and_the_last_are_kept() -> None:
    log = EventLog(3, 2)
    numbers = [log.append(float(turn), [AllBlocksCleared()])[0] for turn in range(4)]
    assert numbers == [0, 1, 2, 3]
    assert [number for number, _ in log.since(0)] == [2, 3]
    assert [number for number, _ in log.since(3)] == [3]
    assert log.since(4) == []
    batch = msgspec.msgpack.decode(log.since(3)[0][1], type=EventBatch)
    assert (batch.ts, batch.data_parallel_rank) == (3.0, 3)


def test_every_kind_of_event_comes_back() -> None:
    events: list[Event] = [AllBlocksCleared(), *removed(a_chain().hashes[:1])]
    events.append(a_chain(SQL, "s").stored(range(0, 1), TOKENS[:32]))
    assert isinstance(events[-1], BlockStored)
    assert msgspec.msgpack.decode(encoded(*events), type=EventBatch).events == events
