import contextlib
from pathlib import Path
from struct import pack

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.collect.kv.events import Cleared, Malformed, Removed, Stored, decode
from tests.extproc.collect.kv.pool import CLEARED, removed, stored

CAPTURES = Path(__file__).parent / "captures"
U64 = (1 << 64) - 1


def batch(*events, at=12.5, rank=(0,)):
    return decode(msgspec.msgpack.encode([at, events, *rank]))


def only(*events):
    """The one event of a batch that is understood whole."""
    read = batch(*events)
    assert read.skipped == 0
    (event,) = read.events
    return event


def test_a_captured_batch_of_vllm_0_32():
    read = decode((CAPTURES / "seq00001.msgpack").read_bytes())

    (event,) = read.events
    assert (read.at, read.skipped) == (1795367721.8081613, 0)
    assert event.hashes == [17711524415583114166]
    assert event.parent == 1325873449938770029
    assert event.token_ids[:8] == pack("<2I", 2419, 11)
    assert len(event.token_ids) == 4 * 32
    assert (event.block_size, event.adapter, event.salt, event.extras) == (32, "", "", ())
    assert (event.group, event.kind) == (0, "full_attention")


def test_captured_salts_adapters_and_resets():
    def read(number):
        return decode((CAPTURES / f"seq{number:05}.msgpack").read_bytes()).events

    assert [(event.salt, event.adapter) for event in read(3)] == [("tenant-7", "")]
    assert [(event.salt, event.adapter) for event in read(4)] == [("", "lora-a")]
    assert [type(event) for event in read(5)] == [Cleared, Stored]


@pytest.mark.parametrize(
    "row",
    [
        ["BlockStored", [5, 6], 4, [1, 2, 3, 4], 2, None],
        ["BlockStored", [5, 6], 4, [1, 2, 3, 4], 2, None, "GPU", None],
        [
            "BlockStored",
            [5, 6],
            4,
            [1, 2, 3, 4],
            2,
            None,
            "GPU",
            None,
            [None, None],
            0,
            "full_attention",
            None,
        ],
        ["BlockStored", [5, 6], 4, [1, 2, 3, 4], 2, None, "GPU", None, None, 0, None, None, None, None, None],
    ],
)
def test_events_as_arrays(row):
    event = only(row)

    assert event[:4] == ([5, 6], 4, pack("<4I", 1, 2, 3, 4), 2)


def test_removals_and_resets_as_arrays():
    assert batch(["BlockRemoved", [5]], ["BlockRemoved", [6], "GPU"], ["AllBlocksCleared"]).events == [
        Removed([5], None),
        Removed([6], None),
        Cleared(),
    ]


def test_maps_may_leave_out_what_is_none():
    event = only(
        {
            "type": "BlockStored",
            "block_hashes": [5],
            "parent_block_hash": None,
            "token_ids": [1],
            "block_size": 1,
        }
    )

    assert event == Stored([5], None, pack("<I", 1), 1, "", "", (), None, None)


@pytest.mark.parametrize("at", [float("nan"), float("inf"), float("-inf")])
def test_a_time_that_is_none_is_0(at):
    assert batch(CLEARED, at=at).at == 0


@pytest.mark.parametrize("rank", [(), (None,), (3,), (3, "and more")])
def test_the_rank_is_optional(rank):
    assert batch(CLEARED, rank=rank).events == [Cleared()]


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (7, 7),
        (U64, U64),
        (-1, U64),
        (-(1 << 63), 1 << 63),
        (bytes(24) + b"\0" * 7 + b"\7", 7),
        (b"\7" * 24 + b"\0" * 7 + b"\1", 1),
    ],
)
def test_hashes_are_named_by_64_bits(told, name):
    assert only(stored([told], [1], parent=told, block=1))[:2] == ([name], name)
    assert only(removed(told)) == Removed([name], 0)


@pytest.mark.parametrize("event", [stored([1], [1], block=1), removed(1)])
@pytest.mark.parametrize(
    "elsewhere", [{"medium": "CPU"}, {"medium": "STORAGE"}, {"medium": "CPU_PINNED"}, {"locality": "REMOTE"}]
)
def test_other_tiers_and_other_machines_do_not_count(event, elsewhere):
    assert batch(event | elsewhere) == (12.5, [], 0)


@pytest.mark.parametrize(
    "here", [{"medium": None}, {"medium": "GPU"}, {"locality": "LOCAL"}, {"locality": None}]
)
def test_the_gpu_counts(here):
    assert only(removed(1, **here)) == Removed([1], 0)


@pytest.mark.parametrize(
    ("fields", "adapter", "salt"),
    [
        ({"extra_keys": [["s"]]}, "", "s"),
        ({"extra_keys": [[["cache_salt", "s"]]]}, "", "s"),
        ({"extra_keys": [["a"]], "lora_name": "a", "lora_id": 1}, "a", ""),
        ({"extra_keys": [["a", "s"]], "lora_name": "a", "lora_id": 1}, "a", "s"),
        ({"extra_keys": [["a", "a"]], "lora_name": "a", "lora_id": 1}, "a", "a"),
        ({"extra_keys": [[["lora", "a", "/path"], ["cache_salt", "s"]]], "lora_name": "a"}, "a", "s"),
        ({"extra_keys": None, "cache_salt": "s", "lora_name": "a"}, "a", "s"),
        ({"extra_keys": None, "lora_name": None, "lora_id": 3}, "\0003", ""),
    ],
)
def test_adapter_and_salt(fields, adapter, salt):
    event = only(stored([1], [1], block=1, **fields))

    assert (event.adapter, event.salt, event.extras) == (adapter, salt, ())


@pytest.mark.parametrize("pair", [["cat", 3], ["mm", "cat", 3]])
def test_images_are_told_in_two_ways_and_read_as_one(pair):
    event = only(stored([1, 2], [1, 2], block=1, extra_keys=[["salt"], [pair]]))

    assert event.salt == "salt"
    assert event.extras == [b"", msgspec.msgpack.encode(["cat", 3])]


def test_digests_of_embedded_prompts_are_told_in_two_ways_and_read_as_one():
    bare = only(stored([1, 2], [1, 2], block=1, extra_keys=[None, [b"digest"]]))
    tagged = only(stored([1, 2], [1, 2], block=1, extra_keys=[None, [["prompt_embeds", b"digest"]]]))

    assert bare.extras == tagged.extras
    assert bare.extras[1]


def test_a_salt_within_a_sequence_is_none():
    event = only(stored([2], [1], parent=1, block=1, extra_keys=[["digest"]]))

    assert event.salt == ""
    assert event.extras == [msgspec.msgpack.encode(["digest"])]


@pytest.mark.parametrize(
    "strange",
    [
        {"type": "BlockLent", "to": "somebody"},
        ["BlockLent", 7],
        stored([1, 2], [1, 2, 3], block=2),
        stored([1], [-1], block=1),
        stored([1], [1 << 32], block=1),
        stored([1], [[1, 2]], block=1),
        stored([1], [1], block=1, extra_keys=[["s"], ["t"]]),
        stored([], [], block=1),
        stored([1], [], block=0),
        stored(["x"], [1], block=1),
        stored([1], [1], block=-1),
        {"no": "type"},
        [],
        None,
        7,
    ],
)
def test_what_is_not_understood_is_skipped_and_the_rest_counts(strange):
    read = batch(removed(1), strange, ["BlockRemoved", [2]])

    assert [event.hashes for event in read.events] == [[1], [2]]
    assert read.skipped == 1


def test_unknown_fields_are_skipped():
    assert only(removed(1, colour="red")) == Removed([1], 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"ts": 1}),
        b"\x92\xca\0\0\0\0" + b"\x91" * 100_000,
        b"\x92\xca\0\0\0\0\x91\x81\xa4type\xa2\xff\xff",
        b"\x92\xca\0\0\0\0\x91\x81\xa2\xff\xff\1",
        msgspec.msgpack.encode([1.0]),
        msgspec.msgpack.encode(["now", []]),
        msgspec.msgpack.encode([1.0, {"type": "AllBlocksCleared"}]),
        msgspec.msgpack.encode([1.0, [{"type": "BlockRemoved", "block_hashes": ["x"]}]]),
        msgspec.msgpack.encode([1.0, [["BlockRemoved"]]]),
    ],
)
def test_what_may_have_removed_blocks_unseen_is_malformed(raw):
    with pytest.raises(Malformed):
        decode(raw)


@given(st.binary(max_size=200))
def test_garbage_is_malformed_at_worst(raw):
    with contextlib.suppress(Malformed):
        decode(raw)


json_like = st.recursive(
    st.none() | st.integers(-(1 << 63), U64) | st.text(max_size=5) | st.binary(max_size=9) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(stored([1], [1], block=1))), json_like, st.booleans())
def test_fields_of_any_type_are_malformed_at_worst(field, value, as_row):
    event = stored([1], [1], block=1) | {field: value}
    told = list(event.values()) if as_row else event
    read = batch(CLEARED, told)

    assert read.events[0] == Cleared()
    assert len(read.events) + read.skipped <= 2
