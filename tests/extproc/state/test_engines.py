import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.state.engines import Engines
from extproc.state.live import Engine

A = "pod/ns/a"
SEEN = Engine(A, "10.0.0.1:8000", 0.0, started=100.0, running=3)


def with_(engine: Engine, **fields: object) -> Engine:
    return msgspec.structs.replace(engine, **fields)


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.engines = Engines(lambda: self.now)
        self.lives: list[tuple[str, int | None, int]] = []
        self.engines.watch(lambda *told: self.lives.append(told))

    def column(self, max_age_s: float = 5.0) -> tuple[Engine | None, float | None]:
        found = self.engines.column([A], max_age_s)
        assert found.now == self.now
        return found.engines[0], found.observed[0]


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_known_at_first(world: World) -> None:
    assert world.engines.get(A) is None
    assert world.column() == (None, None)


def test_the_newest_statement_is_in_force(world: World) -> None:
    world.engines.observe(SEEN)
    world.now += 1
    world.engines.observe(with_(SEEN, running=7, age_s=0.25))

    assert world.engines.get(A) == with_(SEEN, running=7, age_s=0.25)
    assert world.column() == (with_(SEEN, running=7, age_s=0.25), 1000.75)


def test_a_column_has_one_value_per_endpoint_in_order(world: World) -> None:
    other = with_(SEEN, endpoint="pod/ns/b")
    world.engines.observe(SEEN)
    world.engines.observe(other)

    assert world.engines.column(["pod/ns/b", "pod/ns/c", A], 5).engines == [other, None, SEEN]
    assert world.engines.column([], 5) == ([], [], 1000.0)


def test_what_was_observed_too_long_ago_is_not_in_the_column(world: World) -> None:
    world.engines.observe(with_(SEEN, age_s=3.0))
    world.now += 2.0
    assert world.column(5.0)[0] is not None
    world.now += 0.001

    assert world.column(5.0) == (None, None)
    assert world.engines.get(A) is not None


def test_an_engine_that_cannot_be_observed_any_more_is_shown_as_that_while_somebody_says_so(
    world: World,
) -> None:
    world.engines.observe(SEEN)
    for _ in range(10):
        world.now += 1
        world.engines.observe(Engine(A, SEEN.address, 0.0, failing="refused"))

    shown, observed = world.column()
    assert shown == Engine(A, SEEN.address, 0.0, started=SEEN.started, failing="refused")
    assert observed == world.now - 10
    world.now += 6
    assert world.column() == (None, None), "nobody speaks of it any more"


def test_an_engine_that_never_was_observed_may_be_well(world: World) -> None:
    for _ in range(10):
        world.now += 1
        world.engines.observe(Engine(A, SEEN.address, 9.0, failing="no metrics there"))

    assert world.column() == (None, None)


def test_an_older_observation_does_not_replace_a_newer_one(world: World) -> None:
    world.engines.observe(SEEN)
    world.engines.observe(with_(SEEN, running=9, age_s=2.0))

    assert world.engines.get(A) == SEEN


def test_an_older_observation_of_a_former_life_does_not_bring_it_back(world: World) -> None:
    world.engines.observe(with_(SEEN, started=200.0))
    world.engines.observe(with_(SEEN, age_s=2.0))

    assert world.engines.get(A) == with_(SEEN, started=200.0)
    assert len(world.lives) == 1


def test_the_first_statement_begins_a_life(world: World) -> None:
    world.engines.observe(SEEN)
    world.engines.observe(with_(SEEN, running=1))

    assert world.lives == [(A, None, SEEN.life)]


@pytest.mark.parametrize("change", [{"started": 200.0}, {"address": "10.0.0.2:8000"}])
def test_another_start_or_address_begins_another_life(world: World, change: dict[str, object]) -> None:
    heard: list[Engine | None] = []
    world.engines.observe(SEEN)
    world.engines.watch(lambda *told: (world.lives.append(told), heard.append(world.engines.get(A))))
    reborn = with_(SEEN, **change)
    world.engines.observe(reborn)

    assert world.lives[1:] == [(A, SEEN.life, reborn.life)]
    assert heard == [reborn]


def test_a_collector_that_knows_nothing_only_says_that_the_engine_fails(world: World) -> None:
    world.engines.observe(SEEN)
    world.now += 1
    world.engines.observe(Engine(A, SEEN.address, 0.0, failing="connection refused"))

    assert world.column() == (with_(SEEN, failing="connection refused"), 1000.0)
    assert len(world.lives) == 1
    world.now += 10
    assert world.column() == (None, None)


def test_an_engine_that_answers_again_fails_no_more(world: World) -> None:
    world.engines.observe(SEEN)
    world.engines.observe(with_(SEEN, failing="timeout"))
    world.now += 1
    world.engines.observe(SEEN)

    assert world.engines.get(A) == SEEN


def test_an_engine_without_a_start_time_is_observed_all_the_same(world: World) -> None:
    plain = with_(SEEN, started=None)
    world.engines.observe(plain)
    world.now += 1
    world.engines.observe(with_(plain, running=5))

    assert world.engines.get(A) == with_(plain, running=5)


def test_what_is_not_heard_for_long_is_forgotten(world: World) -> None:
    world.engines.observe(SEEN)
    world.now += 599
    world.engines.forget()
    assert world.engines.get(A) == SEEN

    # Heard, though nobody has observed it lately.
    world.engines.observe(with_(SEEN, age_s=599.0, failing="away"))
    world.now += 599
    world.engines.forget()
    assert world.engines.get(A) is not None
    world.now += 2
    world.engines.forget()
    assert world.engines.get(A) is None


statements = st.builds(
    Engine,
    endpoint=st.sampled_from([A, "pod/ns/b"]),
    address=st.sampled_from(["10.0.0.1:8000", "10.0.0.2:8000"]),
    age_s=st.floats(0, 10),
    started=st.sampled_from([None, 100.0, 200.0]),
    failing=st.sampled_from([None, "away"]),
)


@given(st.lists(st.tuples(statements, st.floats(0, 5))))
def test_lives_are_told_one_after_the_other(moves: list[tuple[Engine, float]]) -> None:
    world = World()
    for statement, seconds in moves:
        world.engines.observe(statement)
        world.now += seconds
        told: dict[str, int] = {}
        for endpoint, former, life in world.lives:
            assert told.get(endpoint) == former != life
            told[endpoint] = life
        assert all(world.engines.get(endpoint).life == life for endpoint, life in told.items())
