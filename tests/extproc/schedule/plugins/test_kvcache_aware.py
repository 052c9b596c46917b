from random import Random

import msgspec

from extproc.schedule.plugins.kvcache_aware import KvcacheAware, KvcacheAwareArgs
from extproc.schedule.testing import a_member, a_pool


def plugin(**args):
    return KvcacheAware(msgspec.convert(args, KvcacheAwareArgs))


def test_what_the_engines_say_counts():
    pool = a_pool(a_member(cached=1000, exact=0), a_member(cached=0, exact=500))

    assert plugin().scores(pool, Random(1)) == [0.0, 0.5]
    assert plugin().raw(pool) == [
        "0 of 1000 tokens cached, by KV events",
        "500 of 1000 tokens cached, by KV events",
    ]


def test_without_it_our_own_placements_count_and_the_figures_say_so():
    pool = a_pool(a_member(cached=250), a_member(cached=0))

    assert plugin().scores(pool, Random(1)) == [0.25, 0.0]
    assert plugin().raw(pool)[0] == "250 of 1000 tokens cached, approximately"


def test_kthenas_limits_hold_where_they_are_given():
    pool = a_pool(a_member(exact=1024), a_member(exact=4096), prompt=10_000)

    assert plugin(blockSizeToHash=16, maxBlocksToMatch=128).scores(pool, Random(1)) == [0.5, 1.0]
    assert plugin(maxBlocksToMatch=256).scores(pool, Random(1)) == [0.25, 1.0]


def test_it_wants_token_ids():
    assert plugin().wants_exact


def test_ports_are_not_to_be_chosen():
    assert list(KvcacheAwareArgs(vllm_tokenizer_port=8000, sglang_tokenizer_port=30000).faults()) == []
    faults = list(KvcacheAwareArgs(vllm_tokenizer_port=8001, sglang_tokenizer_port=8002).faults())
    assert [name for name, _ in faults] == ["vllmTokenizerPort", "sglangTokenizerPort"]
    assert all("asked at its own port; remove it" in message for _, message in faults)
