from types import SimpleNamespace

import pytest

from extproc.collect.condition import Condition
from extproc.collect.counters import GAUGES, TOTALS
from extproc.collect.feeds import Following
from extproc.collect.kv.feed import Counts
from extproc.collect.observer import Observer


@pytest.fixture
def condition(site_of, clock):
    observer = Observer(site_of("10.0.0.1:8000"), lambda _: False, clock, clock)
    observer.failed("gone")
    feed = SimpleNamespace(source="tcp://x", blocks=5, counts=Counts(lag_s=0.5))
    idle = SimpleNamespace(source=None, blocks=0, counts=Counts())
    return Condition(
        SimpleNamespace(owned=frozenset({"pod/default/a"}), members=frozenset({"me", "you"}), current=True),
        SimpleNamespace(observers=[observer]),
        SimpleNamespace(
            running={7: Following(7, feed, None), 8: Following(8, idle, None)},
            counts=lambda: Counts(batches=3, blocks=4, gaps=1, replays=2, clears=1),
        ),
        SimpleNamespace(lives={7}),
        SimpleNamespace(published=11, dropped=12),
        SimpleNamespace(written=13),
    )


def test_every_series_has_a_value(condition):
    assert condition.readings().keys() == {*GAUGES, *TOTALS}


def test_values_are_where_they_belong(condition):
    found = {name.removeprefix("kvoy_collector_"): value for name, value in condition.readings().items()}

    assert found == {
        "pods": 1, "pods_failing": 1, "members": 2, "leases_current": 1, "kv_feeds": 1, "kv_blocks": 5,
        "kv_lag_seconds": 0.5, "prefix_lives": 1, "kv_events": 3, "kv_changes": 4, "kv_gaps": 1,
        "kv_replays": 2, "kv_clears": 1, "entries": 11, "dropped_bytes": 12, "snapshots": 13,
    }  # fmt: skip


def test_the_state_shows_each_pod_as_it_was_seen(condition):
    state = condition.state()

    assert state["members"] == ["me", "you"]
    assert state["pods"]["default/a"][0]["failing"] == "gone"


def test_without_a_lease_no_pod_is_shown_as_ours(condition):
    condition.ownership.current = False

    assert condition.state()["pods"] == {}
