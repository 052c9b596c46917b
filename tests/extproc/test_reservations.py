from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.reservations import LIFETIME_S, Reservation, Reservations

A, B = "pod/default/a", "pod/default/b"


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reservations(clock: Clock) -> Reservations:
    return Reservations(clock, lifetime_s=10.0)


def to(reservations: Reservations, pod: str) -> Reservation:
    return reservations.reserve(
        pod=pod, address="10.0.0.1:8000", server="server/default/s", route="route/default/r"
    )


def test_a_reservation_says_what_it_is_for(reservations: Reservations) -> None:
    made = to(reservations, A)

    assert made == Reservation(made.id, A, "10.0.0.1:8000", "server/default/s", "route/default/r", "", 50.0)


def test_it_counts_at_once_and_until_it_is_released(reservations: Reservations) -> None:
    one, two = to(reservations, A), to(reservations, A)
    assert reservations.load(A) == 2

    assert reservations.release(one.id) is one
    assert reservations.load(A) == 1
    assert reservations.release(two.id) is two
    assert reservations.load(A) == 0
    assert reservations.counts() == {}


def test_it_is_released_exactly_once(reservations: Reservations) -> None:
    one, _ = to(reservations, A), to(reservations, A)

    assert reservations.release(one.id) is one
    assert reservations.release(one.id) is None
    assert reservations.load(A) == 1


@pytest.mark.parametrize("never_given", [0, -1, 999])
def test_what_was_never_reserved_releases_nothing(reservations: Reservations, never_given: int) -> None:
    to(reservations, A)

    assert reservations.release(never_given) is None
    assert reservations.counts() == {A: 1}


def test_numbers_are_not_used_twice(reservations: Reservations) -> None:
    ids = []
    for _ in range(100):
        made = to(reservations, A)
        ids.append(made.id)
        reservations.release(made.id)

    assert len(set(ids)) == 100


def test_load_adds_what_the_others_have(reservations: Reservations) -> None:
    to(reservations, A)
    reservations.absorb(stated={A: 1}, totals={A: 5, B: 2})

    assert (reservations.load(A), reservations.load(B)) == (5, 2)


def test_what_came_after_the_statement_is_not_lost_in_the_totals(reservations: Reservations) -> None:
    to(reservations, A)
    stated = reservations.counts()
    to(reservations, A)
    released = to(reservations, B)
    reservations.absorb(stated, totals={A: 4})

    assert (reservations.load(A), reservations.load(B)) == (3 + 2, 1)
    reservations.release(released.id)
    assert reservations.load(B) == 0


def test_a_release_after_the_statement_counts_at_once(reservations: Reservations) -> None:
    one = to(reservations, A)
    stated = reservations.counts()
    reservations.release(one.id)
    reservations.absorb(stated, totals={A: 4})

    assert reservations.load(A) == 3


def test_totals_below_our_own_statement_never_make_a_load_negative(reservations: Reservations) -> None:
    reservations.absorb(stated={A: 3, B: 1}, totals={A: 1})

    assert (reservations.load(A), reservations.load(B)) == (0, 0)


def test_new_totals_replace_the_old(reservations: Reservations) -> None:
    reservations.absorb({}, {A: 4})
    reservations.absorb({}, {B: 1})

    assert (reservations.load(A), reservations.load(B)) == (0, 1)


def test_counts_given_out_do_not_change_later(reservations: Reservations) -> None:
    to(reservations, A)
    counts = reservations.counts()
    to(reservations, A)

    assert counts == {A: 1}


def test_what_outlived_any_request_is_dropped_oldest_first(reservations: Reservations, clock: Clock) -> None:
    one = to(reservations, A)
    clock.now += 1
    two, ended = to(reservations, B), to(reservations, B)
    reservations.release(ended.id)
    clock.now += 5
    young = to(reservations, A)
    assert reservations.expire() == []

    clock.now = 61.0
    assert reservations.expire() == [one, two]
    assert reservations.expire() == []
    assert reservations.counts() == {A: 1}
    assert reservations.release(one.id) is None
    assert reservations.release(young.id) is young


def test_without_a_choice_a_reservation_lives_as_long_as_envoy_allows(clock: Clock) -> None:
    reservations = Reservations(clock)
    made = to(reservations, A)
    clock.now += LIFETIME_S - 1
    assert reservations.expire() == []
    clock.now += 1
    assert reservations.expire() == [made]


def test_every_change_of_a_count_is_told(reservations: Reservations, clock: Clock) -> None:
    told: list[dict[str, int]] = []
    reservations.watch(lambda: told.append(reservations.counts()))
    one, _ = to(reservations, A), to(reservations, B)
    reservations.release(one.id)
    reservations.release(one.id)
    clock.now += 100
    reservations.expire()

    assert told == [{A: 1}, {A: 1, B: 1}, {B: 1}, {}]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "release", "again"]), st.sampled_from([A, B]), st.integers(0, 9)
        )
    )
)
def test_counts_are_those_of_what_is_held(moves: list[tuple[str, str, int]]) -> None:
    reservations, held, ended = Reservations(lambda: 0.0), [], []
    for move, pod, at in moves:
        if move == "reserve":
            held.append(to(reservations, pod))
        elif move == "release" and held:
            ended.append(held.pop(at % len(held)))
            assert reservations.release(ended[-1].id) is ended[-1]
        elif move == "again" and ended:
            assert reservations.release(ended[at % len(ended)].id) is None
        assert reservations.counts() == Counter(r.pod for r in held)
    for reservation in held:
        reservations.release(reservation.id)
    assert reservations.counts() == {}
    assert (reservations.load(A), reservations.load(B)) == (0, 0)


def test_a_reservation_is_released_by_its_request(reservations: Reservations) -> None:
    first = reservations.reserve(pod=A, address="x", server="s", route="r", request_id="one")
    again = reservations.reserve(pod=B, address="x", server="s", route="r", request_id="one")

    assert reservations.release_request("other") is None
    assert reservations.release_request("one") == again, "the latest of them"
    assert reservations.release_request("one") is None
    assert reservations.release(first.id) == first
    assert reservations.counts() == {}
