from random import Random

import msgspec
import pytest

from extproc.schedule.plugins.prefix_cache import PrefixCache, PrefixCacheArgs
from extproc.schedule.testing import a_member, a_pool


def scores(*cached, prompt=10_000, **args):
    pool = a_pool(*[a_member(cached=tokens, exact=0) for tokens in cached], prompt=prompt)
    return PrefixCache(msgspec.convert(args, PrefixCacheArgs)).scores(pool, Random(1))


def test_the_longest_prefix_wins_however_long_the_prompt():
    assert scores(0, 9000, 10_000) == [0.0, 0.9, 1.0]


def test_only_our_own_placements_count():
    """The members say 0 by KV events."""
    assert scores(5000) == [0.5]


def test_kthenas_limits_hold_where_they_are_given():
    """128 blocks of 64 bytes are about 2,048 tokens."""
    assert scores(0, 1024, 2048, 10_000, maxBlocksToMatch=128, blockSizeToHash=64) == [0.0, 0.5, 1.0, 1.0]
    assert scores(1024, maxBlocksToMatch=64) == [1.0]
    assert scores(1024, blockSizeToHash=128) == [0.25]
    assert scores(1, maxBlocksToMatch=1, blockSizeToHash=1) == [1.0]


def test_only_the_best_score_where_a_limit_is_given():
    assert scores(1000, 3000, 2000, topKMatches=2) == [0.0, 0.3, 0.2]


def test_the_size_of_the_index_is_not_to_be_chosen():
    assert list(PrefixCacheArgs(max_hash_cache_size=50_000).faults()) == []
    ((name, message),) = PrefixCacheArgs(max_hash_cache_size=1).faults()
    assert name == "maxHashCacheSize"
    assert message.startswith("has no effect, as the index remembers")
    assert "remove it" in message


@pytest.mark.parametrize("name", ["blockSizeToHash", "maxBlocksToMatch", "topKMatches"])
@pytest.mark.parametrize("value", [0, -1, 2**31, "64"])
def test_what_a_limit_can_not_be(name, value):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({name: value}, PrefixCacheArgs)


def test_the_figures():
    assert PrefixCache(PrefixCacheArgs()).raw(a_pool(a_member(cached=640))) == [
        "640 of 1000 tokens were sent there before"
    ]
