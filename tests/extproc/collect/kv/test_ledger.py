from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.cache import frames, snapshots
from extproc.cache.frames import Namespace, Operation
from extproc.collect.kv import events
from extproc.collect.kv.ledger import Ledger
from tests.extproc.collect.kv.pool import BLOCK, CLEARED, SECRET, Pool, own_chain, removed, stored

CAPTURES = Path(__file__).parent / "captures"
LIFE = 77


class Reader:
    """A ledger, and what somebody holds who follows its frames."""

    def __init__(self):
        self.ledger = Ledger(LIFE, SECRET)
        self.held = set()
        self.operations = []

    def hear(self, *told):
        batch = events.decode(msgspec.msgpack.encode([1.0, told, 0]))
        self.blocks = self.ledger.apply(batch.events)
        self.follow()

    def follow(self):
        for frame in frames.unpack(self.ledger.take()):
            assert (frame.life, frame.namespace, frame.first) == (LIFE, Namespace.KV, 0)
            self.operations.append(frame.operation)
            match frame.operation:
                case Operation.ADD:
                    self.held |= set(frame.numbers())
                case Operation.REMOVE:
                    self.held -= set(frame.numbers())
                case Operation.CLEAR:
                    self.held = set()


@pytest.fixture
def reader():
    return Reader()


PROMPT = list(range(100, 100 + 3 * BLOCK))


def test_blocks_get_the_names_that_workers_compute(reader):
    reader.hear(stored([1, 2], PROMPT[: 2 * BLOCK]), stored([3], PROMPT[2 * BLOCK :], parent=2))

    assert reader.held == set(own_chain(PROMPT))
    assert reader.blocks == 3
    assert reader.ledger.block_size == BLOCK


def test_equal_tokens_after_another_prefix_are_another_block(reader):
    reader.hear(stored([1], PROMPT[:BLOCK]), stored([2], PROMPT[:BLOCK], parent=1))

    assert len(reader.held) == 2


def test_a_block_is_there_until_its_last_copy_is_removed(reader):
    for _ in range(3):
        reader.hear(stored([1], PROMPT[:BLOCK]))
    reader.hear(removed(1))
    reader.hear(removed(1))
    assert reader.held == set(own_chain(PROMPT[:BLOCK]))

    reader.hear(removed(1))
    assert reader.held == set()
    assert len(reader.ledger) == 0


def test_what_is_removed_too_often_comes_back_when_stored(reader):
    reader.hear(stored([1], PROMPT[:BLOCK]), removed(1), removed(1), stored([1], PROMPT[:BLOCK]))

    assert reader.held == set(own_chain(PROMPT[:BLOCK]))


def test_blocks_behind_an_unknown_one_are_dropped_and_counted(reader):
    reader.hear(stored([2, 3], PROMPT[BLOCK:], parent=1), stored([4], PROMPT[:BLOCK], parent=3))

    assert reader.held == set()
    assert reader.ledger.orphans == 3


def test_clearing_drops_everything_before_it(reader):
    reader.hear(stored([1, 2, 3], PROMPT))
    reader.hear(removed(3), CLEARED, stored([1], PROMPT[:BLOCK]))

    assert reader.held == set(own_chain(PROMPT[:BLOCK]))
    assert reader.operations[1:] == [Operation.CLEAR, Operation.ADD]
    reader.hear(stored([2], PROMPT[BLOCK : 2 * BLOCK], parent=2))
    assert reader.ledger.orphans == 1


@pytest.mark.parametrize(
    ("adapter", "salt"), [("lora-a", ""), ("", "tenant-7"), ("lora-a", "tenant-7"), ("tenant-7", "")]
)
def test_adapters_and_salts_keep_prompts_apart(reader, adapter, salt):
    reader.hear(*Pool(10).start([*PROMPT, 1], adapter, salt))

    assert reader.held == set(own_chain(PROMPT, adapter, salt))
    assert reader.held.isdisjoint(own_chain(PROMPT))


def test_images_tell_blocks_with_equal_tokens_apart(reader):
    image = stored([1, 2, 3], PROMPT, extra_keys=[None, [["cat", 0]], None])
    other = stored([1, 4, 5], PROMPT, extra_keys=[None, [["dog", 0]], None])
    reader.hear(image, other)

    text = own_chain(PROMPT)
    assert len(reader.held) == 5
    assert reader.held & set(text) == {text[0]}


def test_one_group_of_layers_stands_for_all(reader):
    full = {"group_idx": 1, "kv_cache_spec_kind": "full_attention"}
    sliding = {"group_idx": 0, "kv_cache_spec_kind": "sliding_window"}
    second = {"group_idx": 2, "kv_cache_spec_kind": "full_attention"}
    reader.hear(*(stored([1, 2, 3], PROMPT, **group) for group in (sliding, full, second)))
    reader.hear(removed(1, 2, group_idx=0), removed(3, group_idx=2))
    assert reader.held == set(own_chain(PROMPT))

    reader.hear(removed(3, group_idx=1))
    assert reader.held == set(own_chain(PROMPT)[:2])


def test_group_0_stands_for_all_where_no_kinds_are_told(reader):
    reader.hear(*(stored([1, 2, 3], PROMPT, group_idx=group, kv_cache_spec_kind=None) for group in (0, 1)))
    reader.hear(removed(3, group_idx=1))

    assert reader.held == set(own_chain(PROMPT))


def test_frames_are_small_enough_for_their_readers(reader):
    tokens = list(range(2500 * BLOCK))
    batch = events.decode(msgspec.msgpack.encode([1.0, [stored(list(range(2500)), tokens)], 0]))
    reader.ledger.apply(batch.events)

    sizes = [len(frame.numbers()) for frame in frames.unpack(reader.ledger.take())]
    assert sizes == [1024, 1024, 452]
    assert reader.ledger.take() == b""


def test_another_collector_continues_with_copies_and_parents():
    first, second = Reader(), Reader()
    first.hear(stored([1, 2], PROMPT[: 2 * BLOCK]), stored([2], PROMPT[BLOCK : 2 * BLOCK], parent=1))
    stored_form = snapshots.encode(first.ledger.snapshot("5-0", 41))
    snapshot = snapshots.decode(stored_form)
    assert (snapshot.position, snapshot.sequence) == ("5-0", 41)
    assert set(frames.numbers(snapshot.own)) == first.held

    second.ledger.restore(snapshot)
    second.follow()
    assert second.operations == []
    second.held = set(first.held)
    second.hear(removed(2), stored([3], PROMPT[2 * BLOCK :], parent=2))
    assert second.held == set(own_chain(PROMPT))
    second.hear(removed(2))
    assert second.held == set(own_chain(PROMPT)) - {own_chain(PROMPT)[1]}


def test_a_restored_ledger_believes_every_removal_until_it_knows_its_group():
    first, second = Reader(), Reader()
    first.hear(stored([1], PROMPT[:BLOCK], group_idx=3))
    second.ledger.restore(first.ledger.snapshot("0-0", 0))

    second.hear(removed(1, group_idx=3))
    assert len(second.ledger) == 0


def test_captured_events_of_vllm_give_the_chains_of_their_token_ids(reader):
    """vLLM 0.32: a prompt, one more block, the same computed again, with a salt, with LoRA, a reset."""
    told = [events.decode(file.read_bytes()) for file in sorted(CAPTURES.glob("*.msgpack"))]
    base = told[0].events[0].token_ids + told[1].events[0].token_ids
    plain = own_chain(_tokens(base), block=32)
    salted = own_chain(_tokens(base[: 96 * 4]), salt="tenant-7", block=32)
    adapted = own_chain(_tokens(base[: 96 * 4]), adapter="lora-a", block=32)

    expected = [plain[:3], plain, plain, plain + salted, plain + salted + adapted, plain[:3], plain]
    for batch, held in zip(told, expected, strict=True):
        reader.ledger.apply(batch.events)
        reader.follow()
        assert reader.held == set(held)


def _tokens(raw):
    return [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]


prompts = st.lists(st.integers(0, 1), min_size=0, max_size=8 * BLOCK).map(lambda tail: [7] * BLOCK + tail)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("start"), prompts, st.sampled_from(["", "lora"]), st.sampled_from(["", "salt"])),
        st.tuples(st.just("finish"), st.integers(0, 5)),
        st.tuples(st.just("reset")),
    ),
    max_size=60,
)


@given(steps, st.integers(8, 20))
def test_the_ledger_is_what_the_engine_holds_whatever_it_does(steps, size):
    pool, reader = Pool(size), Reader()
    chains = []
    for name, *args in steps:
        reader.hear(*(getattr(pool, name)(*args) or ()))
        if name == "start":
            chains.append(own_chain(*args))
        assert reader.held == pool.truth
        assert len(reader.ledger) == len(pool.truth)
        for chain in chains:
            held = [hash_ in reader.held for hash_ in chain]
            assert held == sorted(held, reverse=True), "a chain is held from its start"
