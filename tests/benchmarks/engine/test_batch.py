from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine.batch import Batch, Job, Limits, QueueFullError
from benchmarks.engine.cache import BlockCache


def a_batch(
    running: int = 2, waiting: int = 8, adapters: int = 2, speed: float = 10.0, blocks: int = 100
) -> Batch:
    return Batch(Limits(running, waiting, adapters, speed), BlockCache(blocks, 4))


def a_job(number: int, prompt: int = 10, output: int = 4, adapter: str | None = None) -> Job:
    return Job(number, array("I", [number] * prompt), array("I", [0] * output), adapter)


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
                batch.submit(Job(number, array("I", [1] * size), array("I", [2] * 4), adapter), now)
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
