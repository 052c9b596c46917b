from array import array
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.engine.batch import Batch, Job, Limits, QueueFullError
from benchmarks.engine.cache import BlockCache
from benchmarks.engine.events import AllBlocksCleared, BlockRemoved, BlockStored, Event
from benchmarks.engine.models import Adapter


def a_batch(
    running: int = 2, waiting: int = 8, adapters: int = 2, speed: float = 10.0, blocks: int = 100
) -> Batch:
    return Batch(Limits(running, waiting, adapters, speed), BlockCache(blocks, 4))


def a_job(number: int, prompt: int = 10, output: int = 4, adapter: str | None = None) -> Job:
    return Job(number, array("I", [number] * prompt), array("I", [0] * output), an_adapter(adapter))


def an_adapter(name: str | None) -> Adapter | None:
    return None if name is None else Adapter(name, ord(name))


def test_prefills_run_one_after_another_at_the_given_speed() -> None:
    batch = a_batch()
    batch.submit(a_job(1, 10), now=0.0)
    batch.submit(a_job(2, 20), now=0.5)
    assert batch.next_at == 1.0
    assert batch.advance(0.9) == []
    done = batch.advance(3.0)
    assert [(end.job.id, end.arrived, end.started, end.at) for end in done] == [
        (1, 0.0, 0.0, 1.0),
        (2, 0.5, 0.5, 3.0),
    ]
    assert batch.next_at is None


def test_a_late_look_at_the_clock_does_not_shift_what_happened() -> None:
    batch = a_batch()
    batch.submit(a_job(1), now=0.0)
    batch.submit(a_job(2), now=5.0)  # the first prefill ended at 1.0, unseen
    assert [end.at for end in batch.advance(100.0)] == [1.0, 6.0]


def test_a_cached_prefix_is_not_computed_again() -> None:
    batch = a_batch()
    batch.submit(a_job(1, 10), now=0.0)
    batch.advance(1.0)
    batch.leave(1, 1.0, answered=4)
    batch.submit(Job(2, array("I", [1] * 10), array("I", [0])), now=2.0)
    (end,) = batch.advance(9.0)
    assert (end.cached, end.created, end.at) == (8, 0, 2.2)


def test_the_queue_moves_up_when_a_request_leaves() -> None:
    batch = a_batch(running=1)
    for number in (1, 2, 3):
        batch.submit(a_job(number), now=0.0)
    assert (batch.running, batch.waiting) == (1, 2)
    batch.advance(1.0)
    batch.leave(1, 4.0, answered=4)
    assert (batch.running, batch.waiting) == (1, 1)
    (end,) = batch.advance(5.0)
    assert (end.job.id, end.started, end.at) == (2, 4.0, 5.0)


def test_a_full_queue_refuses_and_keeps_the_rest() -> None:
    batch = a_batch(running=1, waiting=1)
    batch.submit(a_job(1), 0.0)
    batch.submit(a_job(2), 0.0)
    with pytest.raises(QueueFullError):
        batch.submit(a_job(3), 0.0)
    assert (batch.running, batch.waiting) == (1, 1)


def test_without_a_queue_a_free_slot_still_takes_a_request() -> None:
    batch = a_batch(running=1, waiting=0)
    batch.submit(a_job(1), 0.0)
    with pytest.raises(QueueFullError):
        batch.submit(a_job(2), 0.0)


def test_a_request_waits_for_blocks_and_those_behind_it_wait_too() -> None:
    batch = a_batch(running=10, blocks=10)
    batch.submit(a_job(1, 20, 4), 0.0)
    batch.submit(a_job(2, 20, 4), 0.0)
    batch.submit(a_job(3, 1, 1), 0.0)
    assert (batch.running, batch.waiting, batch.deferred) == (1, 2, 0)
    batch.leave(1, 1.0, answered=0)
    assert batch.running == 2


def test_a_request_whose_adapter_has_no_place_is_passed_over() -> None:
    batch = a_batch(running=3, adapters=1)
    batch.submit(a_job(1, adapter="a"), 0.0)
    batch.submit(a_job(2, adapter="b"), 0.0)
    batch.submit(a_job(3, adapter="a"), 0.0)
    batch.submit(a_job(4), 0.0)
    assert (batch.running, batch.deferred) == (3, 1)
    assert (batch.running_adapters, batch.waiting_adapters) == ({"a"}, {"b"})
    batch.leave(1, 1.0, 0)
    assert batch.running_adapters == {"a"}
    batch.leave(3, 1.0, 0)
    assert (batch.running_adapters, batch.waiting) == ({"b"}, 0)


def test_aborting_the_running_prefill_lets_the_next_begin_at_once() -> None:
    batch = a_batch()
    batch.submit(a_job(1, 100), 0.0)
    batch.submit(a_job(2, 10), 0.0)
    batch.leave(1, 2.0, answered=0)
    assert [(end.job.id, end.at) for end in batch.advance(99.0)] == [(2, 3.0)]


def test_aborting_a_prefill_in_line_does_not_delay_the_others() -> None:
    batch = a_batch(running=3)
    for number in (1, 2, 3):
        batch.submit(a_job(number), 0.0)
    batch.leave(2, 0.5, answered=0)
    assert [(end.job.id, end.at) for end in batch.advance(99.0)] == [(1, 1.0), (3, 2.0)]


def test_leaving_twice_or_unknown_changes_nothing() -> None:
    batch = a_batch()
    batch.submit(a_job(1), 0.0)
    batch.leave(1, 0.0, 0)
    batch.leave(1, 0.0, 0)
    batch.leave(99, 0.0, 0)
    assert (batch.running, batch.waiting, batch.blocks.used) == (0, 0, 0)


def test_an_infinite_speed_computes_at_once() -> None:
    batch = a_batch(speed=float("inf"))
    batch.submit(a_job(1), 3.0)
    assert [end.at for end in batch.advance(3.0)] == [3.0]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["submit", "leave", "advance"]),
            st.integers(1, 30),
            st.sampled_from([None, "a", "b", "c"]),
        ),
        max_size=80,
    )
)
def test_whatever_happens_nothing_is_lost_and_limits_hold(steps: list[tuple[str, int, str | None]]) -> None:
    batch = a_batch(running=3, waiting=4, blocks=12)
    inside: set[int] = set()
    computed: set[int] = set()
    now = 0.0
    for number, (step, size, adapter) in enumerate(steps):
        now += 0.3
        if step == "submit":
            try:
                batch.submit(
                    Job(number, array("I", [1] * size), array("I", [2] * 4), an_adapter(adapter)), now
                )
                inside.add(number)
            except QueueFullError:
                assert batch.waiting == 4
        elif step == "advance":
            done = {end.job.id for end in batch.advance(now)}
            assert not done & computed
            computed |= done
        elif inside:
            gone = min(inside)
            inside.remove(gone)
            batch.leave(gone, now, answered=4 if gone in computed else 0)
        assert batch.running + batch.waiting == len(inside)
        assert batch.running <= 3
        assert len(batch.running_adapters) <= 2
        assert batch.next_at is None or batch.running
    for gone in tuple(inside):
        batch.leave(gone, now, answered=0)
    assert (batch.running, batch.waiting, batch.blocks.used, batch.next_at) == (0, 0, 0, None)
    assert not batch.running_adapters


def a_told_batch(blocks: int = 100, running: int = 4) -> Batch:
    return Batch(Limits(running, 99, 2, 10.0), BlockCache(blocks, 4), events=[])


def told(batch: Batch) -> list[Event]:
    events, batch.events = batch.events, []
    return events


def test_a_computed_prompt_is_one_event_and_each_block_of_the_answer_its_own() -> None:
    batch = a_told_batch()
    batch.submit(Job(1, array("I", range(10)), array("I", range(50, 62)), Adapter("a", 7), "s"), 0.0)
    assert told(batch) == []
    batch.advance(1.0)
    (prompt,) = told(batch)
    assert (prompt.token_ids, prompt.parent_block_hash) == (list(range(8)), None)
    assert (prompt.lora_id, prompt.lora_name, prompt.extra_keys) == (7, "a", [["a", "s"], ["a"]])
    assert [batch.answered(1, tokens) for tokens in (1, 2, 3, 7, 8, 12)] == [0, 0, 1, 1, 0, 1]
    answers = told(batch)
    assert [event.token_ids for event in answers] == [[8, 9, 50, 51], [52, 53, 54, 55], [56, 57, 58, 59]]
    assert answers[0].parent_block_hash == prompt.block_hashes[-1]
    assert answers[1].parent_block_hash == answers[0].block_hashes[-1]
    batch.leave(1, 2.0, answered=12)
    assert told(batch) == []


def test_an_answer_to_less_than_a_block_starts_a_chain() -> None:
    batch = a_told_batch()
    batch.submit(Job(1, array("I", [1, 2]), array("I", [3, 4, 5])), 0.0)
    batch.advance(1.0)
    assert batch.answered(1, 3)
    (event,) = told(batch)
    assert (event.token_ids, event.parent_block_hash) == ([1, 2, 3, 4], None)


def test_a_hit_tells_nothing_and_a_block_computed_again_is_told_again() -> None:
    batch = a_told_batch()
    hashes = []
    for number in (1, 2):
        batch.submit(Job(number, array("I", [1] * 8), array("I", [0])), 0.0)
        batch.advance(9.0)
        hashes.append([event.block_hashes for event in told(batch)])
        batch.leave(number, 9.0, answered=1)
    assert [len(blocks[0]) for blocks in hashes] == [2, 1]
    assert hashes[1][0] == hashes[0][0][1:]


def test_a_prompt_that_is_not_computed_is_never_told() -> None:
    batch = a_told_batch()
    batch.submit(a_job(1), 0.0)
    batch.leave(1, 0.5, answered=0)
    assert told(batch) == []


def test_clearing_is_told_only_if_it_was_done() -> None:
    batch = a_told_batch()
    batch.submit(a_job(1), 0.0)
    batch.advance(1.0)
    told(batch)
    assert not batch.clear_cache()
    assert told(batch) == []
    batch.leave(1, 1.0, answered=1)
    assert batch.clear_cache()
    assert told(batch) == [AllBlocksCleared()]


def test_without_a_listener_nothing_is_told() -> None:
    batch = a_batch()
    batch.submit(a_job(1), 0.0)
    batch.advance(1.0)
    batch.leave(1, 1.0, answered=4)
    assert batch.clear_cache()
    assert batch.events is None


def test_a_paused_batch_starts_nothing_and_finishes_what_runs() -> None:
    batch = a_batch()
    batch.submit(a_job(1), 0.0)
    batch.pause()
    batch.submit(a_job(2), 0.0)
    assert (batch.running, batch.waiting) == (1, 1)
    assert [end.job.id for end in batch.advance(9.0)] == [1]
    batch.leave(1, 9.0, answered=4)
    assert (batch.running, batch.waiting) == (0, 1)
    batch.resume(10.0)
    assert [end.at for end in batch.advance(99.0)] == [11.0]


class Listener:
    """An index of the cache, made of nothing but what events tell."""

    def __init__(self) -> None:
        self._prefixes: dict[int | None, tuple[int, ...]] = {None: ()}
        self._copies: Counter[tuple[int, ...]] = Counter()

    def hear(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, BlockStored):
                self._stored(event)
            elif isinstance(event, BlockRemoved):
                (name,) = event.block_hashes
                self._copies[self._prefixes[name]] -= 1
                assert self._copies[self._prefixes[name]] >= 0
            else:
                self._copies.clear()

    def _stored(self, event: BlockStored) -> None:
        prefix = self._prefixes[event.parent_block_hash]
        assert len(event.token_ids) == len(event.block_hashes) * event.block_size
        for place, name in enumerate(event.block_hashes):
            prefix += tuple(event.token_ids[place * 4 : place * 4 + 4])
            assert self._prefixes.setdefault(name, prefix) == prefix
            self._copies[prefix] += 1

    def match(self, prompt: list[int]) -> int:
        """Tokens of the longest prefix that is there."""
        length = 0
        while length + 4 <= len(prompt) and self._copies[tuple(prompt[: length + 4])]:
            length += 4
        return length

    @property
    def blocks(self) -> int:
        return self._copies.total()


_TURNS = st.tuples(
    st.sampled_from(["submit", "submit", "leave", "abort", "advance", "clear"]),
    st.lists(st.integers(0, 1), min_size=1, max_size=20),
    st.integers(1, 12),
)
_LONG = [("submit", [token] * 20, 1) for token in (0, 1)]
_TWO_IN_TURN = [_LONG[0], ("advance", [0], 1), ("leave", [0], 1), _LONG[1], ("advance", [0], 1)]


@given(st.lists(_TURNS, max_size=60))
@example(_TWO_IN_TURN)
def test_who_only_listens_knows_what_is_cached(turns: list[tuple[str, list[int], int]]) -> None:
    batch, listener = a_told_batch(blocks=9, running=3), Listener()
    inside: list[int] = []
    computed: set[int] = set()
    answers: dict[int, int] = {}
    grown: dict[int, int] = {}
    for number, (turn, tokens, answer) in enumerate(turns):
        now = float(number)
        if turn == "submit":
            batch.submit(Job(number, array("I", tokens), array("I", [2] * answer)), now)
            inside.append(number)
            answers[number] = answer
        elif turn == "advance":
            computed |= {end.job.id for end in batch.advance(now)}
        elif turn == "clear":
            batch.clear_cache()
        elif inside:
            gone = inside.pop(0 if turn == "leave" else -1)
            batch.leave(gone, now, answered=grown.get(gone, 0))
        for running in computed.intersection(inside):
            grown[running] = min(grown.get(running, 0) + 2, answers[running])
            batch.answered(running, grown[running])
        listener.hear(told(batch))
    for gone in reversed(inside):
        batch.leave(gone, 99.0, answered=grown.get(gone, 0))
    listener.hear(told(batch))
    assert listener.blocks == batch.blocks.idle
    for _, tokens, _ in turns:
        known = listener.match(tokens)
        batch.submit(Job(1000, array("I", tokens), array("I", [2])), 100.0)
        (end,) = batch.advance(1000.0)
        assert end.cached == min(known, (len(tokens) - 1) // 4 * 4)
        batch.leave(1000, 1000.0, answered=1)
        listener.hear(told(batch))


def a_remote_job(number: int, prompt: int = 10, output: int = 4) -> Job:
    return Job(number, array("I", [number] * prompt), array("I", [0] * output), remote=True)


def test_a_remote_prompt_takes_blocks_but_no_slot_until_it_has_come() -> None:
    batch = a_batch(running=1)
    batch.submit(a_remote_job(1), 0.0)
    batch.submit(a_job(2), 0.0)
    assert batch.admitted == {1: 10}
    assert (batch.running, batch.waiting, batch.deferred, batch.fetching) == (1, 1, 1, 1)
    batch.received(1, 10, 0.5)
    assert (batch.running, batch.waiting, batch.deferred, batch.fetched) == (1, 1, 0, 1)
    assert [end.job.id for end in batch.advance(1.0)] == [2]
    batch.leave(2, 2.0, answered=4)
    (end,) = batch.advance(2.0)
    assert (end.job.id, end.at, end.cached, end.external, end.reused, end.created) == (1, 2.0, 0, 10, 10, 0)
    batch.leave(1, 3.0, answered=4)
    assert (batch.running, batch.waiting, batch.blocks.used) == (0, 0, 0)


def test_a_remote_prompt_needs_a_slot_before_it_is_fetched() -> None:
    batch = a_batch(running=1)
    batch.submit(a_job(1), 0.0)
    batch.submit(a_remote_job(2), 0.0)
    assert (batch.admitted, batch.to_fetch) == ({}, 1)
    batch.leave(1, 1.0, answered=0)
    assert (batch.admitted, batch.to_fetch) == ({2: 10}, 0)


def test_a_remote_prompt_lacks_only_what_is_not_cached_and_computes_what_did_not_come() -> None:
    batch = a_batch()
    batch.submit(a_job(1, 8), 0.0)
    batch.advance(1.0)
    batch.leave(1, 1.0, answered=4)
    batch.submit(Job(2, array("I", [1] * 30), array("I", [0]), remote=True), 1.0)
    assert batch.admitted == {2: 22}
    batch.received(2, 12, 2.0)
    (end,) = batch.advance(9.0)
    assert (end.at, end.cached, end.external, end.created) == (3.0, 8, 12, 8)


def test_another_engine_may_say_what_was_cached() -> None:
    batch = a_batch()
    batch.submit(Job(1, array("I", [1] * 10), array("I", [0]), remote=True, reused=3), 0.0)
    batch.received(1, 10, 0.0)
    assert [end.reused for end in batch.advance(0.0)] == [3]


@pytest.mark.parametrize("came", [False, True])
def test_a_remote_job_that_leaves_gives_its_blocks_back(came: bool) -> None:
    batch = a_batch(running=1)
    batch.submit(a_remote_job(1), 0.0)
    batch.submit(a_job(2), 0.0)
    if came:
        batch.received(1, 10, 0.5)
    before = batch.blocks.used
    batch.leave(1, 0.6, answered=0)
    assert (batch.blocks.used, before, batch.waiting, batch.admitted) == (4, 8, 0, {})


def test_received_blocks_are_told_and_can_be_hit() -> None:
    batch = a_told_batch()
    batch.submit(a_remote_job(1, prompt=12), 0.0)
    assert told(batch) == []
    batch.received(1, 12, 0.0)
    (stored,) = told(batch)
    assert len(stored.block_hashes) == 3
    batch.submit(Job(2, array("I", [1] * 12), array("I", [0])), 1.0)
    assert [end.cached for end in batch.advance(9.0)] == [0, 8]


def test_kept_blocks_stay_in_use_and_let_others_wait_until_they_are_dropped() -> None:
    batch = a_batch(blocks=4)
    batch.submit(a_job(1, 10, 1), 0.0)
    batch.advance(1.0)
    lease = batch.keep(1, 1.0, answered=1)
    assert (batch.running, batch.blocks.used, batch.clear_cache()) == (0, 3, False)
    batch.submit(a_job(2, 10, 1), 1.0)
    assert (batch.running, batch.waiting) == (0, 1)
    batch.drop(lease, 5.0)
    assert [end.at for end in batch.advance(9.0)] == [6.0]
