from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.schedule.catalogue import CATALOGUE
from extproc.schedule.pair import PREFILLS_LISTED, Pair, Terms, choose
from extproc.schedule.placement import Nobody
from extproc.schedule.pool import Prompt
from extproc.schedule.scheduler import LIST_LENGTH, Scheduler
from extproc.schedule.testing import a_member, a_pool
from extproc.state.live import Load
from extproc.state.records import Plugin, Profile
from extproc.state.snapshot import Endpoint

TERMS = Terms(256, decodes_alone=True)
NEVER_ALONE = Terms(256, decodes_alone=False)
SCREENED = Profile((Plugin("least-request"), Plugin("lora-affinity")), (Plugin("lmetric"),))
LEAST_REQUEST = Profile(scorers=(Plugin("least-request"),))


def decodes(*members, prompt=1000, **rest):
    return a_pool(*members, prompt=prompt, role="decode", **rest)


def prefills(*members, prompt=1000, **rest):
    return a_pool(*members, prompt=prompt, role="prefill", **rest)


def found(decode, prefill, terms=TERMS, using=None, turn=0.0):
    return choose(Scheduler.of(using or Profile()), decode, prefill, terms, Random(1), turn)


def paired(decode, prefill, terms=TERMS, using=None, turn=0.0) -> Pair:
    pair = found(decode, prefill, terms, using, turn)
    assert isinstance(pair, Pair)
    return pair


def nobody(decode, prefill, terms=TERMS, using=None) -> Nobody:
    refused = found(decode, prefill, terms, using)
    assert isinstance(refused, Nobody)
    return refused


def names(placement):
    """The endpoints of a placement, such as ``decode-0``, best first."""
    return [candidate.endpoint.pod.rpartition("/")[2] for candidate in placement.candidates]


def both(pair):
    return names(pair.decode)[0], None if pair.prefill is None else names(pair.prefill)[0]


def test_a_long_prompt_that_nobody_has_goes_by_a_prefill_hop():
    pair = paired(decodes(a_member(group="g")), prefills(a_member(group="g")))

    assert both(pair) == ("decode-0", "prefill-0")
    assert (pair.group, pair.score, pair.why_in_short()) == ("g", 1.0, "hop")
    assert pair.why == (
        "default/decode-0 lacks 1000 of 1000 prompt tokens: "
        "default/prefill-0 of its group g computes the prompt"
    )


def test_a_short_prompt_needs_no_hop():
    pair = paired(decodes(a_member(group="g"), prompt=255), prefills(a_member(group="g"), prompt=255))

    assert (both(pair), pair.why_in_short()) == (("decode-0", None), "short")
    assert pair.why == (
        "default/decode-0 computes all of it, as the prompt is short: "
        "255 tokens (a prefill endpoint is asked from 256)"
    )


@pytest.mark.parametrize(("cached", "course"), [(744, "hop"), (745, "cached")])
def test_a_decode_endpoint_that_has_enough_of_the_prompt_needs_no_hop(cached, course):
    pair = paired(decodes(a_member(cached=cached, group="g")), prefills(a_member(group="g")))

    assert pair.why_in_short() == course
    assert (pair.prefill is None) == (course == "cached")


def test_what_is_known_exactly_counts():
    pair = paired(decodes(a_member(cached=1000, exact=0, group="g")), prefills(a_member(group="g")))

    assert pair.why_in_short() == "hop"


def test_what_is_cached_is_looked_up_even_if_no_scorer_asks():
    pair = paired(
        decodes(a_member(cached=900, group="g")), prefills(a_member(group="g")), using=LEAST_REQUEST
    )

    assert pair.chosen.cached == 900
    assert pair.why == (
        "default/decode-0 computes the rest, as it lacks but 100 of 1000 prompt tokens "
        "(a prefill endpoint is asked from 256)"
    )


def test_a_request_that_cannot_be_handed_off_says_why():
    terms = Terms(256, decodes_alone=True, hops="it has several prompts")

    pair = paired(decodes(a_member(group="g")), prefills(a_member(group="g")), terms)

    assert (pair.prefill, pair.why_in_short(), pair.score) == (None, "whole", 1.0)
    assert pair.why == (
        "default/decode-0 computes all of it, as the request cannot be handed off: it has several prompts"
    )


def test_where_decode_endpoints_compute_no_prompts_there_is_always_a_hop():
    terms = Terms(256, decodes_alone=False, hops="it has several prompts")

    pair = paired(
        decodes(a_member(cached=100, group="g"), prompt=100), prefills(a_member(group="g"), prompt=100), terms
    )

    assert both(pair) == ("decode-0", "prefill-0")
    assert (
        pair.why
        == "default/decode-0 computes no prompts: default/prefill-0 of its group g computes the prompt"
    )


def test_the_pair_is_chosen_not_the_best_of_each():
    """The best decode endpoint's own prefill endpoint is busy."""
    pair = paired(
        decodes(a_member(1, group="a"), a_member(2, group="b")),
        prefills(a_member(9, pending=90_000, group="a"), a_member(group="b")),
    )

    assert both(pair) == ("decode-1", "prefill-1")
    assert pair.score == pytest.approx((1.0 + (256 * 2 + 1000) / (256 * 3 + 1000)) / 2)


def test_a_group_counts_with_its_best_prefill_endpoint():
    idle, busy = a_member(group="g"), a_member(9, group="g")

    for order in ([idle, busy], [busy, idle]):
        assert paired(decodes(a_member(group="g")), prefills(*order)).score == 1.0


def test_who_has_the_prompt_beats_who_would_be_sent_it():
    pair = paired(
        decodes(a_member(2, cached=1000, group="g"), a_member(0, group="g")), prefills(a_member(group="g"))
    )

    assert both(pair) == ("decode-0", None)


def test_of_equals_the_one_without_a_hop_is_chosen():
    pool = decodes(a_member(group="g"), a_member(cached=1000, group="g"), a_member(group="g"))

    def chosen(kind):
        pool.prompt = Prompt(1000, kind=kind)
        return both(paired(pool, prefills(a_member(group="g")), using=LEAST_REQUEST))

    assert {chosen(kind) for kind in range(10)} == {("decode-1", None)}


def test_load_comes_before_the_hop_among_equals():
    pool = decodes(a_member(0, group="g"), a_member(1, cached=1000, group="g"))

    assert both(paired(pool, prefills(a_member(group="g")), using=Profile(scorers=()))) == (
        "decode-0",
        "prefill-0",
    )


def test_a_group_without_prefill_endpoint_is_used_only_if_all_are_like_that():
    busy, idle = a_member(90, group="a"), a_member(group="b")

    with_pair = paired(decodes(busy, idle), prefills(a_member(90, group="a"), a_member(group="c")))
    without = paired(decodes(busy, idle), prefills(a_member(group="c")))

    assert both(with_pair) == ("decode-0", "prefill-0")
    assert with_pair.decode.why().startswith("the only one with a prefill endpoint (0.05, next 0.50) of 2")
    assert (both(without), without.why_in_short()) == (("decode-1", None), "no-prefill")
    assert without.why == (
        "default/decode-1 computes the 1000 of 1000 prompt tokens that it lacks, "
        "as no prefill endpoint of its group b is ready"
    )


@pytest.mark.parametrize("prefill", [None, prefills()])
def test_without_any_prefill_endpoint_decode_endpoints_compute_prompts_if_they_can(prefill):
    assert paired(decodes(a_member(group="g")), prefill).why_in_short() == "no-prefill"

    refused = nobody(decodes(a_member(group="g")), prefill, NEVER_ALONE)
    assert (refused.reason, refused.why()) == (
        "no-pair",
        "no group has both a prefill and a decode endpoint ready",
    )


def test_without_any_decode_endpoint_there_is_nobody():
    for terms in (TERMS, NEVER_ALONE):
        refused = nobody(decodes(), prefills(a_member(group="g")), terms)
        assert (refused.reason, refused.considered, refused.explain()["screened"]) == ("no-pair", 0, [])


def test_screens_drop_decode_endpoints():
    full = a_member(waiting=50, group="g")
    room = a_member(90, waiting=1, group="g")

    pair = paired(decodes(full, room), prefills(a_member(group="g")), using=SCREENED)
    refused = nobody(decodes(full, full), prefills(a_member(group="g")), using=SCREENED)

    assert both(pair) == ("decode-1", "prefill-0")
    assert refused.reason == "saturated"
    assert refused.why() == (
        "all 2 ready decode endpoints were screened out (the first: 50 requests wait (limit 10))"
    )


def test_screens_drop_prefill_endpoints():
    full, room = a_member(waiting=50, group="g"), a_member(9, waiting=1, group="g")
    other = a_member(waiting=50, group="other")

    pair = paired(decodes(a_member(group="g")), prefills(full, room, other), using=SCREENED)
    alone = paired(decodes(a_member(group="g")), prefills(full), using=SCREENED)

    assert both(pair) == ("decode-0", "prefill-1")
    assert pair.prefill is not None
    assert (pair.prefill.considered, pair.prefill.evidence.dropped_in_all) == (2, 1)
    assert alone.why.endswith("as every prefill endpoint of its group g is screened out")


def test_who_cannot_do_without_prefill_is_told_what_would_help():
    full = a_member(waiting=50, group="g")

    saturated = nobody(decodes(a_member(group="g")), prefills(full), NEVER_ALONE, SCREENED)
    crossed = nobody(
        decodes(full, a_member(group="h")),
        prefills(a_member(group="g"), a_member(waiting=50, group="h")),
        NEVER_ALONE,
        SCREENED,
    )
    unrelated = nobody(decodes(a_member(group="h")), prefills(full), NEVER_ALONE, SCREENED)

    assert saturated.why() == "the only ready prefill endpoint was screened out: 50 requests wait (limit 10)"
    assert [each.reason for each in (saturated, crossed, unrelated)] == ["saturated", "saturated", "no-pair"]
    assert [dropped.reason for dropped in crossed.dropped] == [
        "50 requests wait (limit 10)",
        "every prefill endpoint of its group h is screened out",
    ]


def test_a_decode_endpoint_that_can_do_nothing_is_told_among_those_screened_out():
    pool = decodes(a_member(group="g"), a_member(group="h"))

    pair = paired(pool, prefills(a_member(group="g")), NEVER_ALONE)

    assert [(each["pod"], each["reason"]) for each in pair.explain()["screened"]] == [
        ("default/decode-1", "no prefill endpoint of its group h is ready")
    ]


def test_nobody_has_the_adapter():
    with_adapter = a_member(adapters=("x",), group="g")
    without = a_member(adapters=(), group="g")

    refused = nobody(
        decodes(with_adapter, adapter="x"), prefills(without, adapter="x"), NEVER_ALONE, SCREENED
    )

    assert refused.reason == "no-adapter"


def test_decode_endpoints_of_the_group_are_listed_first():
    pool = decodes(
        a_member(0, group="a"), a_member(1, group="b"), a_member(7, group="a"), a_member(2, group="b")
    )
    prefill = prefills(a_member(group="a"), a_member(group="b"))

    pair = paired(pool, prefill)
    strict = paired(pool, prefill, NEVER_ALONE)

    assert names(pair.decode) == ["decode-0", "decode-2", "decode-1", "decode-3"]
    assert pair.partners == ("10.2.0.0:8000", "10.2.0.2:8000")
    assert (names(strict.decode), strict.partners) == (["decode-0", "decode-2"], pair.partners)


def test_a_list_has_an_end():
    member = a_member(group="g")

    pair = paired(decodes(*[member] * 9), prefills(*[member] * 9))

    assert pair.prefill is not None
    assert (len(pair.decode.candidates), len(pair.partners)) == (LIST_LENGTH, LIST_LENGTH)
    assert len(pair.prefill.candidates) == PREFILLS_LISTED


def test_who_stands_in_for_a_rank_is_in_another_pod():
    pool = prefills(*[a_member(group="g")] * 7, a_member(9, group="g"))
    pod, other = pool.endpoints[0], pool.endpoints[-1]
    pool.endpoints = [*(Endpoint.of(pod.pod, pod.address, rank, "g") for rank in range(7)), other]
    pool.cached_by = _Cold()

    pair = paired(decodes(a_member(group="g")), pool)

    assert pair.prefill is not None
    assert [each.endpoint.address for each in pair.prefill.candidates] == [pod.address, other.address]


def test_ranks_of_a_pod_are_one_partner():
    pool = decodes(a_member(group="g"), a_member(1, group="g"))
    pod = pool.endpoints[0]
    pool.endpoints = [Endpoint.of(pod.pod, pod.address, rank, "g") for rank in range(2)]
    pool.cached_by = _Cold()

    pair = paired(pool, prefills(a_member(group="g")))

    assert (len(pair.decode.candidates), pair.partners, pair.destinations) == (
        2,
        (pod.address,),
        pod.address,
    )


class _Cold:
    def approximate(self, endpoints):
        return [0] * len(endpoints)

    def exact(self, endpoints):
        return None


def after(pool, endpoint, load):
    """The pool once a request is counted on an endpoint."""
    pool.loads = [
        Load(before.requests + load.requests, before.tokens + load.tokens)
        if each.key == endpoint.key
        else before
        for each, before in zip(pool.endpoints, pool.loads, strict=True)
    ]


@pytest.mark.parametrize("using", [Profile(), LEAST_REQUEST, Profile(scorers=())])
def test_a_burst_spreads_over_both_kinds(using):
    d, p = decodes(*[a_member(group="g")] * 8), prefills(*[a_member(group="g")] * 4)
    chosen = []

    for _ in range(16):
        pair = paired(d, p, using=using, turn=0.3)
        assert pair.prefill is not None
        after(d, pair.chosen.endpoint, Load(1, 0))
        after(p, pair.prefill.chosen.endpoint, Load(1, 1000))
        chosen.append(both(pair))

    assert set(Counter(decode for decode, _ in chosen).values()) == {2}
    assert set(Counter(prefill for _, prefill in chosen).values()) == {4}


def test_a_burst_through_many_workers_spreads_within_a_group():
    """Each begins at a place of its own, whatever else is in the pool."""
    others = [a_member(99, group="other")] * 12
    d, p = decodes(*[a_member(group="g")] * 4, *others), prefills(*[a_member(group="g")] * 4, *others)

    chosen = [both(paired(d, p, turn=at / 4)) for at in range(4)]

    assert {decode for decode, _ in chosen} == {f"decode-{at}" for at in range(4)}
    assert {prefill for _, prefill in chosen} == {f"prefill-{at}" for at in range(4)}


def test_a_pair_explains_itself():
    pool = decodes(a_member(3, cached=100, group="g"), a_member(group="h"))
    pair = paired(pool, prefills(a_member(2, group="g")))

    told = pair.explain()

    handoff = told.pop("handoff")
    assert told == pair.decode.explain()
    assert told["why"] == (
        "best by lmetric and prefill (0.83, next 0.50) of 2 ready decode endpoints: "
        "3 in flight, 100 of 1000 prompt tokens cached"
    )
    assert told["scorers"] == [{"name": "lmetric", "weight": 0.5}, {"name": "prefill", "weight": 0.5}]
    assert [row["scores"][1]["raw"] for row in told["candidates"]] == [
        "best of group g; 900 uncached tokens",
        "none in group h; 1000 uncached tokens",
    ]
    assert pair.prefill is not None
    assert handoff == {
        "group": "g",
        "pair_score": pair.score,
        "why": pair.why,
        "prefill": pair.prefill.explain(),
    }
    assert handoff["prefill"]["why"] == "the only ready prefill endpoint of the group"
    assert pair.headline() == f"{pair.decode.headline()} prefill=default/prefill-0"
    assert pair.rows == 3


def test_without_scorers_a_pair_explains_itself_too():
    pool = decodes(a_member(group="g"), a_member(group="h"), a_member(group="h"))

    pairs = [
        paired(pool, prefills(a_member(group="g")), terms, Profile(scorers=()))
        for terms in (TERMS, NEVER_ALONE)
    ]

    assert [pair.decode.why() for pair in pairs] == [
        "best by prefill endpoint (1.00, next 0.50) of 3 ready decode endpoints: "
        "0 in flight, 0 of 1000 prompt tokens cached",
        "the only one of 3 ready decode endpoints that is not screened out",
    ]


def test_no_hop_is_explained_too():
    pair = paired(decodes(*[a_member(cached=1000, group="g")] * 2), prefills(a_member(group="g")))

    told = pair.explain()

    assert told["candidates"][0]["scores"][1]["raw"] == "no hop: 0 uncached tokens"
    assert told["handoff"]["prefill"] is None
    assert pair.headline().endswith("in-flight=0 prefill=none")


plugin_names = st.sampled_from([name for name, entry in CATALOGUE.items() if entry.scorer])
members = st.builds(
    a_member,
    requests=st.integers(0, 5),
    pending=st.integers(0, 3000),
    cached=st.sampled_from([0, 300, 900, 2000]),
    exact=st.none() | st.integers(0, 1000),
    group=st.sampled_from("abc"),
    waiting=st.none() | st.integers(0, 20),
    running=st.none() | st.integers(0, 5),
    kv_usage=st.none() | st.floats(0, 1),
    capacity_tokens=st.none() | st.integers(1, 10**6),
    asleep=st.booleans(),
    adapters=st.none() | st.sets(st.sampled_from("xy")).map(tuple),
)
pools = st.lists(members, max_size=8)
all_terms = st.builds(
    Terms, st.integers(0, 1200), decodes_alone=st.booleans(), hops=st.none() | st.just("it cannot")
)
profiles = st.builds(
    lambda scorers, screens: Profile(tuple(map(Plugin, screens)), tuple(map(Plugin, scorers))),
    st.lists(plugin_names, max_size=3, unique=True),
    st.lists(st.sampled_from(["least-request", "lora-affinity"]), unique=True),
)


@given(
    pools,
    st.none() | pools,
    all_terms,
    profiles,
    st.sampled_from([0, 200, 1000]),
    st.none() | st.just("x"),
    st.floats(0, 1, exclude_max=True),
)
def test_whatever_is_there_a_pair_keeps_the_rules(decode, prefill, terms, using, prompt, adapter, turn):
    scheduler = Scheduler.of(using)
    d = decodes(*decode, prompt=prompt, adapter=adapter)
    p = None if prefill is None else prefills(*prefill, prompt=prompt, adapter=adapter)

    pair = choose(scheduler, d, p, terms, Random(1), turn)

    told = pair.explain()
    assert msgspec.json.encode(told)
    allowed = by_brute_force(scheduler, d, p, terms)
    if isinstance(pair, Nobody):
        assert allowed == {}
        assert pair.why() == told["why"]
        assert len(told["screened"]) == pair.considered
        return
    assert pair.headline().isascii()
    assert (pair.why_in_short() == "hop") == (pair.prefill is not None)
    key = pair.chosen.endpoint.key
    partner = None if pair.prefill is None else pair.prefill.chosen.endpoint.key
    assert allowed[key, partner] == pytest.approx(max(allowed.values()))
    assert pair.score == pytest.approx(allowed[key, partner])
    listed = [candidate.endpoint for candidate in pair.decode.candidates]
    own = [endpoint.group == pair.group for endpoint in listed]
    assert own == sorted(own, reverse=True)
    assert terms.decodes_alone or all(own)
    assert len(set(listed)) == len(listed) <= LIST_LENGTH
    assert pair.partners == tuple(each.address for each in listed if each.group == pair.group)
    if pair.prefill is not None:
        assert {candidate.endpoint.group for candidate in pair.prefill.candidates} == {pair.group}
        assert len(pair.prefill.candidates) <= PREFILLS_LISTED


def by_brute_force(scheduler, decode, prefill, terms):
    """Every allowed pair of keys (the second None: no hop) to its score; the draws are those of `choose`."""
    rng = Random(1)
    judged = scheduler.judge(decode, rng)
    if isinstance(judged, Nobody):
        return {}
    pool = judged.pool
    lacking = {
        each.key: pool.prompt.tokens - cached
        for each, cached in zip(pool.endpoints, pool.cached, strict=True)
    }
    easy = {
        key: terms.decodes_alone and (terms.hops is not None or lacks < terms.threshold)
        for key, lacks in lacking.items()
    }
    handed = None
    if prefill is not None and not all(easy.values()):
        handed = scheduler.judge(prefill, rng)
    found, alone = {}, {}
    for endpoint, own in zip(judged.pool.endpoints, judged.totals, strict=True):
        if easy[endpoint.key]:
            found[endpoint.key, None] = (own + 1) / 2
            continue
        alone[endpoint.key, None] = own / 2
        if handed is not None and not isinstance(handed, Nobody):
            for other, score in zip(handed.pool.endpoints, handed.totals, strict=True):
                if other.group == endpoint.group:
                    found[endpoint.key, other.key] = (own + score) / 2
    return found or (alone if terms.decodes_alone else {})
