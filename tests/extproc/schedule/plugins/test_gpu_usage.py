from random import Random

import pytest

from extproc.schedule.plugin import Args
from extproc.schedule.plugins.gpu_usage import GpuUsage
from extproc.schedule.testing import a_member, a_pool


def scores(*members):
    return GpuUsage(Args()).scores(a_pool(*members), Random(1))


def test_an_empty_cache_is_best():
    assert scores(a_member(kv_usage=0.25), a_member(kv_usage=1.0), a_member(kv_usage=0.0)) == [0.75, 0.0, 1.0]


def test_unknown_usage_counts_as_the_mean():
    assert scores(a_member(kv_usage=1.0), a_member(), a_member(running=1), a_member(kv_usage=0.5)) == (
        [0.0, 0.25, 0.25, 0.5]
    )
    assert scores(a_member(), a_member()) == [0.5, 0.5]


@pytest.mark.parametrize(("usage", "score"), [(1.5, 0.0), (-1.0, 1.0)])
def test_nonsense_stays_within_bounds(usage, score):
    assert scores(a_member(kv_usage=usage)) == [score]


def test_the_figures():
    assert GpuUsage(Args()).raw(a_pool(a_member(kv_usage=0.254), a_member())) == [
        "25% of KV blocks in use",
        "unknown",
    ]
