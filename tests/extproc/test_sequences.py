from hypothesis import given
from hypothesis import strategies as st

from extproc.sequences import Sequences, Turn


def test_entries_in_order_miss_nothing() -> None:
    sequences = Sequences()

    assert [sequences.take("p", number, 0.0) for number in (1, 2, 3)] == [Turn.NEXT] * 3


def test_the_first_entry_that_is_read_may_have_any_number() -> None:
    assert Sequences().take("p", 700, 0.0) is Turn.NEXT


def test_what_was_read_before_is_told() -> None:
    sequences = Sequences()
    sequences.take("p", 5, 0.0)

    assert sequences.take("p", 5, 0.0) is Turn.AGAIN
    assert sequences.take("p", 3, 0.0) is Turn.AGAIN
    assert sequences.take("p", 6, 0.0) is Turn.NEXT


def test_a_gap_is_told_once() -> None:
    sequences = Sequences()
    sequences.take("p", 5, 0.0)

    assert [sequences.take("p", number, 0.0) for number in (8, 9)] == [Turn.GAP, Turn.NEXT]


def test_producers_count_on_their_own() -> None:
    sequences = Sequences()
    sequences.take("p", 5, 0.0)

    assert sequences.take("q", 9, 0.0) is Turn.NEXT
    assert sequences.take("p", 6, 0.0) is Turn.NEXT


def test_silent_producers_are_forgotten() -> None:
    sequences = Sequences()
    sequences.take("silent", 5, 0.0)
    sequences.take("heard", 5, 0.0)
    sequences.take("heard", 6, 500.0)
    sequences.forget(700.0)

    assert sequences.take("silent", 50, 700.0) is Turn.NEXT
    assert sequences.take("heard", 50, 700.0) is Turn.GAP


@given(st.lists(st.integers(1, 30), min_size=1))
def test_an_entry_is_new_once_at_most(numbers: list[int]) -> None:
    sequences, new = Sequences(), []
    for number in numbers:
        if sequences.take("p", number, 0.0) is not Turn.AGAIN:
            new.append(number)

    assert new == sorted(set(new))
    assert new[-1] == max(numbers)
