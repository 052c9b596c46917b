import logging

import pytest

from extproc.collect.metrics import Exposition, Observation, Tally
from extproc.collect.observer import Observer
from extproc.collect.scrape import Sight
from extproc.state.live import Engine, life

ADDRESS = "10.0.0.1:8000"


def sight(*ranks, started=5.0, adapters=(), paused=False):
    return Sight(Exposition(started, dict(enumerate(ranks)), frozenset()), adapters, paused)


def busy(running, seconds=0.0, events=0.0):
    return Observation(running=running, ttft=Tally(seconds, events), tpot=Tally(2 * seconds, events))


@pytest.fixture
def observer_of(site_of, clock):
    followed = set()

    def observer(ranks=1):
        made = Observer(site_of(ADDRESS, ranks=ranks), followed.__contains__, clock, lambda: clock.now + 1e9)
        made.now_followed = followed
        return made

    return observer


def test_a_look_becomes_a_statement_that_ages(observer_of, clock):
    observer = observer_of()
    observer.saw(sight(Observation(1, 2, 0.5, False, None, None, 16, 1600), adapters=("a",)))
    clock.now += 0.5

    assert observer.statements() == [
        Engine(
            "pod/default/a", ADDRESS, 0.5, started=5.0, running=1, waiting=2, kv_usage=0.5,
            adapters=("a",), block_size=16, capacity_tokens=1600,
        )
    ]  # fmt: skip


def test_before_the_first_success_nothing_is_known_but_why(observer_of):
    observer = observer_of()
    observer.failed("/metrics answers 503")

    assert observer.statements() == [Engine("pod/default/a", ADDRESS, 0.0, failing="/metrics answers 503")]
    assert observer.lives() == {}


def test_a_failure_keeps_the_last_values_and_lets_them_age(observer_of, clock):
    observer = observer_of()
    observer.saw(sight(busy(3)))
    clock.now += 7
    observer.failed("gone")

    (statement,) = observer.statements()

    assert (statement.failing, statement.running, statement.age_s, statement.started) == ("gone", 3, 7, 5.0)
    assert observer.lives() == {"pod/default/a": life("pod/default/a", ADDRESS, 5.0)}


def test_failing_and_recovering_is_logged_once_each(observer_of, caplog):
    caplog.set_level(logging.INFO)
    observer = observer_of()
    for _ in range(3):
        observer.failed("gone")
    for _ in range(3):
        observer.saw(sight(busy(0)))

    assert [record.message for record in caplog.records] == [
        "default/a can not be observed: gone",
        "default/a is observed again",
    ]
    assert observer.statements()[0].failing is None


def test_a_pod_can_not_fill_the_stream_with_why_it_fails(observer_of):
    observer = observer_of()
    observer.failed("x" * 10**6)

    assert len(observer.statements()[0].failing) < 1000


def test_latencies_are_of_the_last_interval(observer_of, clock):
    observer = observer_of()
    observer.saw(sight(busy(0, 10.0, 100)))
    clock.now += 1
    observer.saw(sight(busy(0, 11.0, 104)))

    (statement,) = observer.statements()

    assert (statement.ttft_s, statement.tpot_s) == (0.25, 0.5)


def test_another_life_forgets_the_latencies_of_the_former(observer_of, clock):
    observer = observer_of()
    for at, events in enumerate((0, 4)):
        observer.saw(sight(busy(0, events, events)))
        clock.now += at
    before = observer.lives()
    observer.saw(sight(busy(0, 9, 9), started=6.0))

    assert observer.statements()[0].ttft_s is None
    assert observer.lives() != before


def test_an_engine_that_does_not_tell_its_start_restarts_when_its_counts_shrink(observer_of, clock):
    observer = observer_of()
    observer.saw(sight(busy(0, 5, 5), started=None))
    first = observer.lives()
    observer.saw(sight(busy(0, 6, 6), started=None))
    assert observer.lives() == first

    observer.saw(sight(busy(0, 0, 0), started=None))

    assert observer.statements()[0].started == clock.now + 1e9
    second = observer.lives()
    assert second != first
    observer.saw(sight(busy(0, 1, 1), started=None))
    assert observer.lives() == second


def test_each_rank_is_an_engine_of_its_own(observer_of):
    observer = observer_of(ranks=2)
    observer.saw(sight(busy(1), busy(2)))

    assert [(one.endpoint, one.running) for one in observer.statements()] == [
        ("pod/default/a#0", 1),
        ("pod/default/a#1", 2),
    ]
    assert len(set(observer.lives().values())) == 2


def test_a_rank_that_is_not_exposed_fails_alone(observer_of):
    observer = observer_of(ranks=2)
    observer.saw(sight(busy(1)))

    assert [one.failing for one in observer.statements()] == [
        None,
        "/metrics has nothing of data-parallel rank 1",
    ]
    assert list(observer.lives()) == ["pod/default/a#0"]


def test_undeclared_ranks_count_as_one_engine_and_are_told_of_once(observer_of, caplog):
    observer = observer_of()
    for _ in range(2):
        observer.saw(sight(busy(1), busy(2)))

    assert [one.running for one in observer.statements()] == [3]
    (record,) = caplog.records
    assert "kvoy.io/data-parallel-size: '2' on ModelServer default/s" in record.message


def test_of_undeclared_ranks_nobody_knows_which_cache_a_request_meets(observer_of):
    observer = observer_of()
    observer.saw(sight(busy(1)))
    assert observer.lives_with_one_cache() == observer.lives()

    observer.saw(sight(busy(1), busy(2)))

    assert observer.lives_with_one_cache() == {}
    ranked = observer_of(ranks=2)
    ranked.saw(sight(busy(1), busy(2)))
    assert ranked.lives_with_one_cache() == ranked.lives()


@pytest.mark.parametrize(("asleep", "paused"), [(True, False), (False, True)])
def test_asleep_is_what_sleeps_or_is_paused(observer_of, asleep, paused):
    observer = observer_of()
    observer.saw(sight(Observation(asleep=asleep), paused=paused))

    assert observer.statements()[0].asleep


def test_whether_kv_events_are_followed_is_stated(observer_of):
    observer = observer_of()
    observer.saw(sight(busy(0)))
    assert not observer.statements()[0].kv_events

    observer.now_followed.add("pod/default/a")

    assert observer.statements()[0].kv_events


def test_the_capacity_is_what_was_seen_last(observer_of):
    observer = observer_of()
    (endpoint,) = observer.site.endpoints
    assert observer.capacity_tokens(endpoint) is None

    observer.saw(sight(Observation(capacity_tokens=99)))

    assert observer.capacity_tokens(endpoint) == 99
