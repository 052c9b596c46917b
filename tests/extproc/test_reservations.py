from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.reservations import LIFETIME_S, SILENCE_S, Reservation, Reservations
from extproc.state.live import InFlight, Load

A, B = "pod/default/a", "pod/default/b#1"


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


def to(reservations: Reservations, endpoint: str, tokens: int = 0, prefill_s: float = 0.0) -> Reservation:
    return reservations.reserve(
        endpoint=endpoint,
        address="10.0.0.1:8000",
        server="server/default/s",
        route="route/default/r",
        tokens=tokens,
        prefill_s=prefill_s,
    )


def test_a_reservation_says_what_it_is_for(reservations: Reservations) -> None:
    claim = object()
    made = reservations.reserve(
        endpoint=B,
        address="10.0.0.1:8000",
        server="server/default/s",
        route="route/default/r",
        request_id="id",
        tokens=700,
        prefill_s=0.5,
        claim=claim,
    )

    assert made == Reservation(
        made.id, B, "10.0.0.1:8000", "server/default/s", "route/default/r", "id", 50.0, 700, claim
    )
    assert made.claim is claim


def test_it_counts_at_once_and_until_it_is_released(reservations: Reservations) -> None:
    one, two = to(reservations, A), to(reservations, A)
    assert reservations.load(A) == Load(2, 0)

    assert reservations.release(one.id) is one
    assert reservations.load(A) == Load(1, 0)
    assert reservations.release(two.id) is two
    assert reservations.load(A) == Load(0, 0)
    assert reservations.counts() == {}


def test_it_is_released_exactly_once(reservations: Reservations) -> None:
    one, _ = to(reservations, A), to(reservations, A)

    assert reservations.release(one.id) is one
    assert reservations.release(one.id) is None
    assert reservations.load(A) == Load(1, 0)


@pytest.mark.parametrize("never_given", [0, -1, 999])
def test_what_was_never_reserved_releases_nothing(reservations: Reservations, never_given: int) -> None:
    to(reservations, A)

    assert reservations.release(never_given) is None
    assert reservations.counts() == {A: Load(1, 0)}


def test_numbers_are_not_used_twice(reservations: Reservations) -> None:
    ids = []
    for _ in range(100):
        made = to(reservations, A)
        ids.append(made.id)
        reservations.release(made.id)

    assert len(set(ids)) == 100


def test_loads_come_in_the_order_that_is_asked(reservations: Reservations) -> None:
    to(reservations, A)

    assert reservations.loads([B, A, "pod/default/unknown"]) == [Load(0, 0), Load(1, 0), Load(0, 0)]
    assert reservations.loads([]) == []


# Prompt tokens.


def test_tokens_are_pending_until_they_are_expected_to_be_computed(
    reservations: Reservations, clock: Clock
) -> None:
    to(reservations, A, tokens=500, prefill_s=2.0)
    to(reservations, A, tokens=30, prefill_s=1.0)
    assert reservations.load(A) == Load(2, 530)

    clock.now += 1.0
    assert reservations.load(A) == Load(2, 500)
    clock.now += 1.0
    assert reservations.loads([A]) == [Load(2, 0)]


def test_tokens_end_with_the_request(reservations: Reservations, clock: Clock) -> None:
    ended = to(reservations, A, tokens=500, prefill_s=2.0)
    to(reservations, A, tokens=30, prefill_s=3.0)
    reservations.release(ended.id)
    assert reservations.load(A) == Load(1, 30)

    clock.now += 2.0
    assert reservations.load(A) == Load(1, 30)


def test_a_late_release_does_not_take_tokens_away_twice(reservations: Reservations, clock: Clock) -> None:
    first = to(reservations, A, tokens=500, prefill_s=1.0)
    clock.now += 1.0
    to(reservations, A, tokens=70, prefill_s=5.0)
    reservations.release(first.id)

    assert reservations.load(A) == Load(1, 70)


def test_without_a_time_to_compute_nothing_is_pending(reservations: Reservations) -> None:
    made = to(reservations, A, tokens=500, prefill_s=0.0)

    assert reservations.load(A) == Load(1, 0)
    assert made.tokens == 500


def test_it_tells_when_the_next_tokens_are_computed(reservations: Reservations, clock: Clock) -> None:
    assert reservations.next_due() is None
    to(reservations, A, tokens=5, prefill_s=3.0)
    to(reservations, B, tokens=5, prefill_s=2.0)
    assert reservations.next_due() == 52.0

    clock.now = 52.5
    reservations.settle()
    assert reservations.next_due() == 53.0
    clock.now = 53.5
    reservations.settle()
    assert reservations.next_due() is None


# Other workers.


def state(reservations: Reservations, instance: str, loads: dict[str, Load], *, whole: bool = False) -> None:
    reservations.absorb(InFlight(instance, loads, whole))


def test_load_adds_what_the_others_have(reservations: Reservations) -> None:
    to(reservations, A, tokens=10, prefill_s=1.0)
    state(reservations, "one", {A: Load(4, 100), B: Load(2, 0)})
    state(reservations, "two", {A: Load(1, 1)})

    assert reservations.loads([A, B]) == [Load(6, 111), Load(2, 0)]
    assert reservations.counts() == {A: Load(1, 10)}
    assert reservations.own(A) == Load(1, 10)
    assert reservations.own(B) == Load(0, 0)


def test_what_a_silent_worker_stated_is_not_believed_for_long(
    reservations: Reservations, clock: Clock
) -> None:
    state(reservations, "silent", {A: Load(4, 100)})
    state(reservations, "heard", {A: Load(1, 1)})
    clock.now += SILENCE_S
    state(reservations, "heard", {})
    reservations.forget_silent()
    assert reservations.load(A) == Load(5, 101)

    clock.now += 0.001
    reservations.forget_silent()
    assert reservations.load(A) == Load(1, 1)


def test_counts_given_out_do_not_change_later(reservations: Reservations) -> None:
    to(reservations, A)
    counts = reservations.counts()
    to(reservations, A)

    assert counts == {A: Load(1, 0)}


# Lost ends.


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
    assert reservations.counts() == {A: Load(1, 0)}
    assert reservations.release(one.id) is None
    assert reservations.release(young.id) is young


def test_without_a_choice_a_reservation_lives_as_long_as_envoy_allows(clock: Clock) -> None:
    reservations = Reservations(clock)
    made = to(reservations, A)
    clock.now += LIFETIME_S - 1
    assert reservations.expire() == []
    clock.now += 1
    assert reservations.expire() == [made]


def test_every_change_of_a_load_is_told(reservations: Reservations, clock: Clock) -> None:
    told: list[tuple[str, Load]] = []
    reservations.watch(lambda endpoint: told.append((endpoint, reservations.own(endpoint))))
    one, _ = to(reservations, A), to(reservations, B, tokens=7, prefill_s=1.0)
    reservations.release(one.id)
    reservations.release(one.id)
    state(reservations, "another", {A: Load(3, 3)})
    clock.now += 1.5
    reservations.settle()
    clock.now += 100
    reservations.expire()

    assert told == [(A, (1, 0)), (B, (1, 7)), (A, (0, 0)), (B, (1, 0)), (B, (0, 0))]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "release", "again", "wait"]),
            st.sampled_from([A, B]),
            st.integers(0, 9),
            st.integers(0, 3),
        )
    )
)
def test_loads_are_those_of_what_is_held(moves: list[tuple[str, str, int, int]]) -> None:
    clock = Clock()
    reservations, held, ended = Reservations(clock), [], []
    due: dict[int, float] = {}
    for move, endpoint, at, seconds in moves:
        if move == "reserve":
            held.append(to(reservations, endpoint, tokens=10 + at, prefill_s=float(seconds)))
            due[held[-1].id] = clock.now + seconds
        elif move == "release" and held:
            ended.append(held.pop(at % len(held)))
            assert reservations.release(ended[-1].id) is ended[-1]
        elif move == "again" and ended:
            assert reservations.release(ended[at % len(ended)].id) is None
        elif move == "wait":
            clock.now += seconds / 2
        requests, tokens = Counter(r.endpoint for r in held), Counter()
        for r in held:
            tokens[r.endpoint] += r.tokens if due[r.id] > clock.now else 0
        assert reservations.loads([A, B]) == [(requests[e], tokens[e]) for e in (A, B)]
        assert reservations.counts() == {e: (requests[e], tokens[e]) for e in (A, B) if requests[e]}
    for reservation in held:
        reservations.release(reservation.id)
    assert reservations.counts() == {}
    assert reservations.loads([A, B]) == [(0, 0), (0, 0)]


def test_what_an_engine_has_to_do_after_all_counts_from_then_on(reservations: Reservations, clock: Clock):
    one = to(reservations, A)
    claim = object()

    reservations.owe(one.id, 700, 2.0, claim)

    assert reservations.load(A) == Load(1, 700)
    kept = reservations.get(one.id)
    assert kept is not None
    assert (kept.tokens, kept.claim) == (700, claim)
    clock.now += 2.0
    assert reservations.load(A) == Load(1, 0)
    reservations.release(one.id)
    assert reservations.counts() == {}


def test_nothing_is_owed_twice_nor_by_what_is_over(reservations: Reservations):
    one = to(reservations, A)
    reservations.owe(one.id, 700, 2.0, None)
    reservations.owe(one.id, 700, 2.0, None)
    assert reservations.load(A) == Load(1, 700)

    reservations.release(one.id)
    reservations.owe(one.id, 700, 2.0, None)
    assert reservations.load(A) == Load(0, 0)
    assert reservations.get(one.id) is None
