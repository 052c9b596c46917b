from collections import Counter
from random import Random

from extproc.schedule.plugin import Args
from extproc.schedule.plugins.random import Uniform
from extproc.schedule.testing import a_member, a_pool


def test_every_endpoint_is_as_likely():
    pool, rng, plugin = a_pool(*[a_member(at) for at in range(4)]), Random(1), Uniform(Args())

    def winner():
        scores = plugin.scores(pool, rng)
        return scores.index(max(scores))

    drawn = Counter(winner() for _ in range(4000))

    assert all(abs(drawn[at] - 1000) < 100 for at in range(4))


def test_there_is_nothing_behind_a_draw():
    assert Uniform(Args()).raw(a_pool(a_member(), a_member())) == ["drawn", "drawn"]
