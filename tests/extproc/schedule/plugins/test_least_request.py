from random import Random

import msgspec
import pytest

from extproc.schedule.plugins.least_request import LeastRequestArgs, LeastRequestScorer, LeastRequestScreen
from extproc.schedule.testing import a_member, a_pool


def scores(*members):
    return LeastRequestScorer(LeastRequestArgs()).scores(a_pool(*members), Random(1))


def test_the_screen_drops_engines_with_a_long_queue_and_keeps_the_unknown():
    screen = LeastRequestScreen(LeastRequestArgs(max_waiting_requests=3))
    pool = a_pool(a_member(waiting=2), a_member(waiting=3), a_member(), a_member(running=50))

    assert screen.reasons(pool) == [None, "3 requests wait (limit 3)", None, None]


def test_ten_may_not_wait_unless_the_file_says_so():
    assert LeastRequestScreen(LeastRequestArgs()).reasons(a_pool(a_member(waiting=9))) == [None]
    assert LeastRequestScreen(LeastRequestArgs()).reasons(a_pool(a_member(waiting=10))) != [None]


@pytest.mark.parametrize("limit", [0, -1, 2**31, 1.5, True])
def test_what_the_limit_can_not_be(limit):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"maxWaitingRequests": limit}, LeastRequestArgs)


def test_the_formula():
    """In flight + 100 for each that waits: 4, 2 and 102 (3 in flight, 2 of them running)."""
    assert scores(a_member(4, running=4), a_member(2, running=9), a_member(3, running=2, waiting=1)) == [
        99 / 103,
        101 / 103,
        0.0,
    ]


def test_requests_that_the_engine_has_not_counted_yet_do_not_wait():
    """A busy engine and one that just got its first request: what was scraped before says nothing of it."""
    assert scores(a_member(8, running=8, waiting=0), a_member(1, running=0, waiting=0)) == [0.0, 7 / 8]


def test_idle_engines_are_equal():
    assert scores(a_member(running=0), a_member(running=5)) == [1.0, 1.0]


def test_our_own_count_decides_before_the_engine_has_reported():
    assert scores(a_member(1), a_member(0), a_member(2)) == [0.5, 1.0, 0.0]


def test_a_missing_report_neither_attracts_nor_repels():
    """Waiting 0 and 4: the unknown one counts as 2."""
    found = scores(a_member(4, running=4), a_member(4), a_member(4, running=0, waiting=4))

    assert found[0] > found[1] > found[2]
    assert found[1] == pytest.approx((found[0] + found[2]) / 2)


def test_the_figures():
    pool = a_pool(a_member(4, running=1, waiting=9), a_member(2))

    assert LeastRequestScorer(LeastRequestArgs()).raw(pool) == [
        "4 in flight, 3 waiting",
        "2 in flight, waiting unknown",
    ]
