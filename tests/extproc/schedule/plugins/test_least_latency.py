from random import Random

import msgspec
import pytest

from extproc.schedule.plugins.least_latency import LeastLatency, LeastLatencyArgs
from extproc.schedule.testing import a_member, a_pool

QUICK_TO_BEGIN = a_member(ttft_s=0.1, tpot_s=0.04)
QUICK_TO_GO_ON = a_member(ttft_s=0.3, tpot_s=0.02)


def scores(*members, share=0.5):
    return LeastLatency(LeastLatencyArgs(share)).scores(a_pool(*members), Random(1))


def test_the_argument_weighs_the_first_token_against_the_others():
    assert scores(QUICK_TO_BEGIN, QUICK_TO_GO_ON, share=1.0) == [1.0, 0.0]
    assert scores(QUICK_TO_BEGIN, QUICK_TO_GO_ON, share=0.0) == [0.0, 1.0]
    assert scores(QUICK_TO_BEGIN, QUICK_TO_GO_ON, share=0.75) == [0.75, 0.25]


def test_times_between_the_extremes_score_between():
    assert scores(a_member(ttft_s=1.0), a_member(ttft_s=2.0), a_member(ttft_s=5.0), share=1.0) == [1, 0.75, 0]


def test_equals_are_equally_good():
    assert scores(QUICK_TO_BEGIN, QUICK_TO_BEGIN) == [1.0, 1.0]


def test_an_engine_that_never_answered_counts_as_the_mean():
    assert scores(a_member(ttft_s=1.0), a_member(), a_member(running=0), a_member(ttft_s=3.0), share=1.0) == (
        [1.0, 0.5, 0.5, 0.0]
    )
    assert scores(a_member(), a_member()) == [1.0, 1.0]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "0.5", True])
def test_what_the_argument_can_not_be(share):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"TTFTTPOTWeightFactor": share}, LeastLatencyArgs)


def test_the_argument_has_kthenas_name():
    assert msgspec.convert({"TTFTTPOTWeightFactor": 1}, LeastLatencyArgs) == LeastLatencyArgs(1.0)


def test_the_figures():
    pool = a_pool(a_member(ttft_s=0.1234, tpot_s=0.02), a_member(ttft_s=0.1), a_member())

    assert LeastLatency(LeastLatencyArgs()).raw(pool) == [
        "first token 123 ms, each further 20 ms",
        "first token 100 ms, each further unknown",
        "unknown",
    ]
