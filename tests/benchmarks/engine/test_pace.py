import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine.pace import Pace


def a_pace(alone_s: float = 1.0, further_s: float = 0.5, chunk_s: float = 3.0) -> Pace:
    return Pace(alone_s, further_s, chunk_s, started=100.0)


def test_alone_an_answer_gains_a_token_by_each_step() -> None:
    pace = a_pace()
    assert not pace.change(answers=1, is_prefilling=False, now=100.0)
    assert (pace.steps(102.5), pace.due(4.0)) == (2.5, 104.0)


def test_answers_hold_each_other_up_and_a_prompt_holds_up_all() -> None:
    pace = a_pace()
    assert pace.change(answers=3, is_prefilling=False, now=101.0)
    assert pace.steps(105.0) == 3.0  # one of 1 s, two of 2 s
    assert pace.change(answers=3, is_prefilling=True, now=105.0)
    assert pace.due(4.0) == 110.0


def test_an_engine_that_answers_at_once_counts_no_steps() -> None:
    pace = a_pace(alone_s=0.0)
    assert (pace.steps(500.0), pace.due(0.0)) == (0.0, 100.0)


def test_shortly_before_a_change_the_new_pace_holds_too() -> None:
    pace = a_pace()
    pace.change(answers=3, is_prefilling=False, now=101.0)
    assert pace.steps(100.9) == pytest.approx(0.95)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0.01, 10.0)), max_size=20))
def test_no_change_takes_steps_back_or_makes_them_due_at_another_time(changes) -> None:
    pace, now = a_pace(), 100.0
    for answers, is_prefilling, seconds in changes:
        now += seconds
        before = pace.steps(now)
        pace.change(answers, is_prefilling, now)
        assert pace.steps(now) == pytest.approx(before)
        assert pace.steps(pace.due(before + 2.0)) == pytest.approx(before + 2.0)
        assert pace.due(before + 2.0) > now
