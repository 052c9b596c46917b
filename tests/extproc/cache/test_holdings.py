import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.cache import frames
from extproc.cache.frames import Frame, FramesCorrupt, Namespace, Operation, packed
from extproc.cache.holdings import Holdings
from extproc.cache.slices import SLICE
from extproc.cache.snapshots import KvSnapshot

A, B, UNKNOWN = 0xA, 0xB, 0xC
PLENTY = 10**9
CHAIN = [at * 0x9E3779B97F4A7C15 % 2**64 for at in range(1, 301)]
KV_CHAIN = [at * 0xC2B2AE3D27D4EB4F % 2**64 for at in range(1, 301)]


def a_replica(*lives, capacity=PLENTY):
    holdings = Holdings()
    for life in lives or (A, B):
        holdings.enroll(life, capacity)
    return holdings


def settle(holdings):
    steps = 0
    while holdings.step():
        steps += 1
        assert steps < 100_000
    return holdings


def publish(source, *replicas):
    raw = source.take_outbox(1 << 30)
    for replica in replicas:
        replica.receive(raw)
        settle(replica)
    return raw


def depths(holdings, chain=CHAIN, lives=(A, B)):
    return settle(holdings).prefix_depths(chain, lives)


def kv(life, *hashes, operation=Operation.ADD):
    return Frame(life, Namespace.KV, operation, 0, packed(hashes)).pack()


def test_what_one_worker_learns_all_workers_know():
    one, other = a_replica(), a_replica()
    one.learn(A, CHAIN[:200])
    one.learn(B, CHAIN[:50])
    publish(one, other)

    assert depths(one) == depths(other) == [200, 50]


def test_what_is_known_is_not_published_again():
    one = a_replica()
    one.learn(A, CHAIN[:200])
    settle(one)
    first = one.take_outbox(1 << 30)
    one.learn(A, CHAIN[:200])
    assert one.take_outbox(1 << 30) == b""

    one.learn(A, CHAIN[:210])
    assert len(first) == 18 + 200 * 8
    assert frames.unpack(one.take_outbox(1 << 30)) == [
        Frame(A, Namespace.PREFIX, Operation.ADD, 200, packed(CHAIN[200:210]))
    ]


def test_what_grew_old_is_published_when_it_is_used_again():
    one = a_replica(capacity=2 * 4 * 64)
    one.learn(A, CHAIN[:4])
    settle(one)
    one.take_outbox(1 << 30)
    one.learn(A, CHAIN[:4])

    rotated, added = frames.unpack(one.take_outbox(1 << 30))
    assert rotated == frames.rotate(A, 1)
    assert added.numbers() == tuple(CHAIN[:4])
    settle(one)
    one.learn(A, CHAIN[:5])
    _, added = frames.unpack(one.take_outbox(1 << 30))
    assert added.numbers() == tuple(CHAIN[:5]), "the start of a chain stays at least as long as its end"


def test_corrections_reach_everybody():
    one, other = a_replica(), a_replica()
    one.learn(A, CHAIN)
    one.learn(B, CHAIN)
    one.correct(A, CHAIN, 120)
    one.clear(B, Namespace.PREFIX)
    one.resize(A, 12345)
    publish(one, other)

    assert depths(one) == depths(other) == [120, 0]
    assert one.snapshot(A, "") == other.snapshot(A, "")
    assert other.snapshot(A, "").capacity == 12345


def test_the_namespaces_share_nothing():
    one = a_replica()
    one.learn(A, CHAIN)
    one.receive(kv(A, *KV_CHAIN[:7]) + kv(B, *CHAIN[:9]))

    assert depths(one) == [300, 0]
    assert one.kv_depths(KV_CHAIN, [A, B]) == [7, 0]
    assert one.kv_depths(CHAIN, [A, B]) == [0, 9]
    one.clear(A, Namespace.KV)
    assert depths(one) == [300, 0]
    assert one.kv_depths(KV_CHAIN, [A, B]) == [0, 0]
    assert (one.entries(Namespace.PREFIX), one.entries(Namespace.KV)) == (300, 9)


def test_a_retired_life_holds_nothing_and_what_is_queued_about_it_is_dropped():
    one = a_replica()
    one.learn(A, CHAIN)
    one.receive(kv(A, *KV_CHAIN))
    settle(one)
    one.learn(A, CHAIN[:100] + KV_CHAIN)
    one.learn(B, CHAIN[:30])
    one.step(budget=1)
    one.retire(A)

    assert one.prefix_depths(CHAIN, [A]) == one.kv_depths(KV_CHAIN, [A]) == [0]
    assert depths(one) == [0, 30]
    assert one.entries(Namespace.PREFIX) == 30
    assert one.entries(Namespace.KV) == 0
    one.enroll(A, PLENTY)
    assert depths(one) == [0, 30]
    assert set(one.lives) == {A, B}


def test_retiring_what_is_not_enrolled_changes_nothing():
    one = a_replica(A)
    one.retire(UNKNOWN)

    assert set(one.lives) == {A}


def test_frames_heard_before_their_life_is_enrolled_count():
    one, other = a_replica(UNKNOWN), a_replica()
    one.learn(UNKNOWN, CHAIN[:40])
    publish(one, other)
    other.receive(kv(UNKNOWN, *KV_CHAIN[:5]))
    assert depths(other, lives=[UNKNOWN]) == [0]

    other.enroll(UNKNOWN, PLENTY)
    assert depths(other, lives=[UNKNOWN]) == [40]
    assert other.kv_depths(KV_CHAIN, [UNKNOWN]) == [5]


def test_what_is_heard_of_unknown_lives_is_bounded():
    one = a_replica(A)
    for life in range(100, 10_000):
        one.receive(kv(life, *KV_CHAIN))

    assert one.queued == 0
    one.enroll(100, PLENTY)
    one.enroll(9_999, PLENTY)
    settle(one)
    assert one.kv_depths(KV_CHAIN, [100, 9_999]) == [0, 300]


def test_enrolling_again_changes_nothing():
    one = a_replica(A, capacity=5000)
    one.learn(A, CHAIN[:8])
    one.enroll(A, 100)

    assert depths(one) == [8, 0]
    assert one.snapshot(A, "").capacity == 5000


@pytest.mark.parametrize("say", ["learn", "correct", "clear", "resize"])
def test_nothing_is_said_of_lives_that_are_not_enrolled(say):
    one = a_replica(A)
    arguments = {
        "learn": (CHAIN,),
        "correct": (CHAIN, 3),
        "clear": (Namespace.PREFIX,),
        "resize": (5,),
    }
    getattr(one, say)(UNKNOWN, *arguments[say])

    assert one.take_outbox(1 << 30) == b""
    one.enroll(UNKNOWN, PLENTY)
    assert one.queued == 0


def test_corrupt_frames_are_refused_whole():
    one = a_replica()
    with pytest.raises(FramesCorrupt):
        one.receive(kv(A, 1, 2, 3) + b"garbage")

    assert one.queued == 0


def test_a_long_change_is_applied_in_small_steps_and_in_order():
    one = a_replica()
    long = list(range(1 << 40, (1 << 40) + 5000))
    one.learn(A, long)
    one.correct(A, long, 4000)
    one.learn(A, CHAIN)
    seen = []
    while one.step(budget=128):
        seen.append(one.entries(Namespace.PREFIX))

    assert max(abs(after - before) for before, after in pairwise(seen)) < 128 + SLICE
    assert max(seen) > 4900
    assert depths(one, long) == [4000, 0]
    assert depths(one) == [300, 0]


def test_the_steps_of_a_rotation_and_of_a_load_are_small_too():
    source = a_replica(A, capacity=2 * 64 * 2000)
    for turn in range(3):
        for at in range(2000):
            source.learn(A, [1 + at + 2000 * turn])
        sizes = [source.entries(Namespace.PREFIX)]
        if turn < 2:
            settle(source)
    while source.step(budget=128):
        sizes.append(source.entries(Namespace.PREFIX))
    assert max(sizes) > min(sizes) + 1900
    target = a_replica(A)
    target.restore(A, source.snapshot(A, "1-0"))
    loading = []
    while target.step(budget=128):
        loading.append(target.entries(Namespace.PREFIX))

    for counts in (sizes, loading):
        assert len(counts) > 20
        assert max(abs(b - a) for a, b in pairwise(counts)) < 128 + SLICE


def test_the_outbox_is_taken_in_whole_frames():
    one = a_replica()
    for at in range(10):
        one.learn(A, [at + 1])
    assert len(one.take_outbox(3 * 26 + 5)) == 3 * 26
    assert len(one.take_outbox(1)) == 26
    rest = one.take_outbox(1 << 20)

    assert [frame.numbers() for frame in frames.unpack(rest)] == [(at,) for at in range(5, 11)]
    assert one.take_outbox(1 << 20) == b""


def test_a_worker_that_starts_has_everything_from_snapshots_and_the_stream():
    first, collector = a_replica(), a_replica()
    first.learn(A, CHAIN[:150])
    publish(first, collector)
    stored = collector.snapshot(A, "5-0")
    first.learn(A, CHAIN)
    late = publish(first, collector)

    second = a_replica()
    second.restore(A, stored)
    second.receive(late)
    assert depths(second) == depths(first) == [300, 0]
    assert second.snapshot(A, "") == collector.snapshot(A, "")


def test_a_kv_snapshot_replaces_what_was_missed():
    one = a_replica()
    one.receive(kv(A, *KV_CHAIN))
    own = packed(KV_CHAIN[:60])
    one.restore(A, KvSnapshot("5-0", own, own, bytes(240), 17))
    settle(one)

    assert one.kv_depths(KV_CHAIN, [A]) == [60]


def test_a_snapshot_of_an_unknown_life_is_not_loaded():
    one = a_replica(A)
    own = packed(KV_CHAIN[:60])
    one.restore(UNKNOWN, KvSnapshot("5-0", own, own, bytes(240), 17))

    assert one.queued == 0


def test_a_part_of_the_stream_can_be_read_again_for_some_lives():
    one = a_replica()
    raw = kv(A, *KV_CHAIN[:10]) + kv(B, *KV_CHAIN[:20])
    one.receive(raw, only=[(Namespace.KV, B)])
    settle(one)

    assert one.kv_depths(KV_CHAIN, [A, B]) == [0, 20]


# Random traces of several workers and a collector.

PROMPTS = [
    [hash((branch if at > 5 else 0, at)) % 2**64 for at in range(length)]
    for branch, length in ((1, 12), (2, 20), (3, 40), (4, 8), (5, 30))
]
DOINGS = st.sampled_from(["learn"] * 8 + ["correct", "clear", "resize", "step"])


@st.composite
def _traces(draw):
    step = st.tuples(DOINGS, st.sampled_from([A, B]), st.integers(0, 4), st.integers(0, 40))
    return draw(st.lists(step, max_size=50))


def act(holdings, doing, life, prompt, number):
    match doing:
        case "learn":
            holdings.learn(life, PROMPTS[prompt][:number])
        case "correct":
            holdings.correct(life, PROMPTS[prompt], number)
        case "clear":
            holdings.clear(life, Namespace.PREFIX)
        case "resize":
            holdings.resize(life, number * 64)
        case "step":
            holdings.step(budget=number)


@given(_traces(), st.data())
@settings(max_examples=80, deadline=None)
def test_replicas_that_hear_the_same_are_equal_however_they_step(trace, data):
    speaker = a_replica(capacity=60 * 64)
    listener = a_replica(capacity=60 * 64)
    loaded = None
    for doing in trace:
        act(speaker, *doing)
        raw = speaker.take_outbox(1 << 30)
        listener.receive(raw)
        if data.draw(st.booleans(), label="step"):
            listener.step(budget=data.draw(st.integers(1, 50), label="budget"))
        if loaded is not None:
            loaded.receive(raw)
        elif data.draw(st.booleans(), label="load"):
            loaded = a_replica(capacity=1)
            for life in (A, B):
                loaded.restore(life, settle(listener).snapshot(life, "1-0"))
    for other in [listener, *([] if loaded is None else [loaded])]:
        for life in (A, B):
            assert settle(other).snapshot(life, "") == settle(speaker).snapshot(life, "")
        for prompt in PROMPTS:
            assert depths(other, prompt) == depths(speaker, prompt)
        assert other.entries(Namespace.PREFIX) == speaker.entries(Namespace.PREFIX)


@given(_traces(), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_the_index_is_what_the_generations_hold(trace, rng):
    one = a_replica(capacity=60 * 64)
    for doing in trace:
        act(one, *doing)
    settle(one)
    held = {life: one._prefix.generations(life) for life in (A, B)}

    for prompt in PROMPTS:
        for life, depth in zip((A, B), depths(one, prompt), strict=True):
            # A step of the gallop may pass over a hole, and never stops short of the true depth.
            true = next((at for at, block in enumerate(prompt) if block not in held[life]), len(prompt))
            assert depth >= true
            assert depth == 0 or prompt[depth - 1] in held[life]
    every = {block for prompt in PROMPTS for block in prompt}
    assert one.entries(Namespace.PREFIX) == sum(block in held[A] or block in held[B] for block in every)


KV_STEP = st.tuples(st.sampled_from(["add", "remove", "clear"]), st.integers(0, 20), st.integers(0, 20))


@given(st.lists(KV_STEP, max_size=40), st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_lost_and_reordered_changes_are_healed_by_a_snapshot(told, begin, length, swap):
    """The truth is a set; one replica misses a part, then gets the snapshot and what followed it."""
    truth, positions, raws = set(), [], []
    for doing, start, count in told:
        blocks = KV_CHAIN[start : start + count]
        match doing:
            case "add":
                truth |= set(blocks)
                raws.append(kv(A, *blocks))
            case "remove":
                truth -= set(blocks)
                raws.append(kv(A, *blocks, operation=Operation.REMOVE))
            case "clear":
                truth = set()
                raws.append(frames.clear(A, Namespace.KV).pack())
        positions.append(sorted(truth))
    one = a_replica()
    heard = raws[:begin] + raws[begin + length :]
    for raw in reversed(heard) if swap else heard:
        one.receive(raw)
    # A snapshot may include some of what is applied again after it.
    at = min(begin, len(told))
    own = packed(positions[-1] if positions else [])
    one.restore(A, KvSnapshot("1-0", own, own, bytes(len(own) // 2), 0))
    for raw in raws[at:]:
        one.receive(raw)
    settle(one)

    assert {block for block in KV_CHAIN if one.kv_depths([block], [A]) == [1]} == truth


def test_memory_is_bounded_by_the_capacities():
    rng = random.Random(3)
    one = a_replica(*range(8), capacity=500 * 64)
    for _ in range(3000):
        one.learn(rng.randrange(8), [rng.getrandbits(64) for _ in range(10)])
        settle(one)

    assert one.entries(Namespace.PREFIX) <= 8 * 510
    assert one.queued == 0


def test_workers_that_hear_each_other_late_keep_holding_the_same():
    """Each applies its own placements first; over a hundred generations they do not drift apart."""
    rng = random.Random(5)
    workers = [a_replica(A, capacity=2 * 64 * 300) for _ in range(3)]
    late = []
    popular = [[rng.getrandbits(64) for _ in range(10)] for _ in range(40)]
    for at in range(6000):
        speaker = rng.randrange(3)
        chain = rng.choice(popular) if rng.random() < 0.5 else [rng.getrandbits(64) for _ in range(10)]
        workers[speaker].learn(A, chain)
        late.append((at + rng.randrange(1, 6), speaker, workers[speaker].take_outbox(1 << 30)))
        for _, source, raw in [item for item in late if item[0] <= at]:
            for listener in range(3):
                if listener != source:
                    workers[listener].receive(raw)
        late = [item for item in late if item[0] > at]
        for worker in workers:
            settle(worker)

    held = [worker.snapshot(A, "") for worker in workers]
    numbers = [snapshot.generation for snapshot in held]
    assert min(numbers) > 80
    assert max(numbers) - min(numbers) <= 1
    sets = [{*frames.numbers(snapshot.young), *frames.numbers(snapshot.old)} for snapshot in held]
    every, shared = set.union(*sets), set.intersection(*sets)
    assert len(shared) > 0.85 * len(every)
