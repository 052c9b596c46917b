from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.schedule.catalogue import CATALOGUE, UnknownPlugin
from extproc.schedule.placement import Nobody, Placement
from extproc.schedule.pool import Prompt
from extproc.schedule.scheduler import LARGE, LIST_LENGTH, REMEMBERED, Judged, Scheduler
from extproc.schedule.testing import a_member, a_pool
from extproc.state.live import Load
from extproc.state.records import Plugin, Profile


def profile(*scorers, screens=()):
    return Profile(
        tuple(Plugin(name) for name in screens),
        tuple(Plugin(*scorer) if isinstance(scorer, tuple) else Plugin(scorer) for scorer in scorers),
    )


def place(pool, using=None, seed=1):
    return Scheduler.of(using or Profile()).place(pool, Random(seed))


def placed(pool, using=None, seed=1):
    placement = place(pool, using, seed)
    assert isinstance(placement, Placement)
    return placement


def numbers(placement):
    """Which members were listed, best first."""
    return [int(candidate.endpoint.pod.rpartition("/")[2]) for candidate in placement.candidates]


def test_the_default_looks_for_the_least_work():
    pool = a_pool(a_member(), a_member(cached=512), a_member(9))

    assert numbers(placed(pool)) == [1, 0, 2]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers())
def test_with_an_empty_prompt_it_is_the_fewest_in_flight(counts, seed):
    placement = placed(a_pool(*map(a_member, counts), prompt=0), seed=seed)

    assert [candidate.load.requests for candidate in placement.candidates] == sorted(counts)[:LIST_LENGTH]
    assert len(set(numbers(placement))) == min(len(counts), LIST_LENGTH)
    assert placement.considered == len(counts)


def test_scores_are_weighed():
    pool = a_pool(a_member(kv_usage=0.0, ttft_s=3.0), a_member(kv_usage=0.5, ttft_s=1.0))

    assert numbers(placed(pool, profile(("gpu-usage", {}, 3.0), ("least-latency", {}, 1.0)))) == [0, 1]
    assert numbers(placed(pool, profile(("gpu-usage", {}, 1.0), ("least-latency", {}, 3.0)))) == [1, 0]


def test_a_total_is_the_weighted_mean():
    pool = a_pool(a_member(kv_usage=0.0, cached=500), a_member(kv_usage=1.0))

    first, second = placed(pool, profile(("gpu-usage", {}, 3.0), ("prefix-cache", {}, 1.0))).candidates

    assert (first.score, second.score) == (pytest.approx(0.75 + 0.125), 0.0)


def test_arguments_of_the_profile_reach_the_plugins():
    pool = a_pool(a_member(waiting=5), a_member(4, waiting=1))
    strict = Profile((Plugin("least-request", {"maxWaitingRequests": 5}),))

    assert numbers(placed(pool)) == [0, 1]
    assert numbers(placed(pool, strict)) == [1]


def test_equal_scores_go_to_the_fewest_in_flight():
    pool = a_pool(*[a_member(count, kv_usage=0.5) for count in (3, 1, 2)])

    assert numbers(placed(pool, profile("gpu-usage"))) == [1, 2, 0]


def test_without_scorers_the_fewest_in_flight_are_chosen():
    assert numbers(placed(a_pool(a_member(3), a_member(1), a_member(2)), profile())) == [1, 2, 0]


@pytest.mark.parametrize("members", [4, 16])
def test_equals_take_turns(members):
    pool, scheduler = a_pool(*[a_member()] * members), Scheduler.of(Profile())

    def chosen(turn: float) -> list[int]:
        return numbers(scheduler.place(pool, Random(1), turn))

    assert [chosen(at / members)[0] for at in range(members)] == list(range(members))
    assert chosen((members - 1) / members)[:2] == [members - 1, 0], (
        "the next in turn is the first to retry on"
    )


def test_prompts_that_begin_alike_stay_together_where_they_are_cached():
    pool = a_pool(*[a_member(cached=500)] * 4, a_member())

    def chosen(kind: int, turn: float) -> int:
        pool.prompt = Prompt(1000, kind=kind)
        return numbers(Scheduler.of(Profile()).place(pool, Random(1), turn))[0]

    assert {chosen(7, at / 10) for at in range(10)} == {2}
    assert {chosen(kind, 0.0) for kind in range(5)} == {0, 1, 2, 3}


def test_whose_turn_it_is_matters_among_equals_only():
    pool = a_pool(a_member(1), a_member(0), a_member(1))

    assert numbers(Scheduler.of(Profile()).place(pool, Random(1), 0.9)) == [1, 2, 0]


@pytest.mark.parametrize(
    ("name", "good"), [("gpu-usage", {"kv_usage": 0.1}), ("least-latency", {"ttft_s": 0.1})]
)
def test_the_endpoint_that_a_scorer_prefers_gets_everything(name, good):
    bad = {field: value * 9 for field, value in good.items()}
    pool = a_pool(a_member(**bad), a_member(**good), a_member(**bad))

    assert {numbers(placed(pool, profile(name), seed))[0] for seed in range(20)} == {1}


def test_a_screen_drops_and_the_rest_is_ranked():
    pool = a_pool(a_member(waiting=99), a_member(5), a_member(1))

    placement = placed(pool, profile("lmetric", screens=["least-request"]))

    assert numbers(placement) == [2, 1]
    assert placement.considered == 3
    assert [(d.endpoint.pod, d.reason) for d in placement.evidence.dropped] == [
        ("pod/default/0", "99 requests wait (limit 10)")
    ]


def test_engines_asleep_are_left_out_while_others_are_awake():
    assert numbers(placed(a_pool(a_member(asleep=True), a_member(50), a_member(60, running=1)))) == [1, 2]
    assert numbers(placed(a_pool(a_member(asleep=True), a_member(1, asleep=True)))) == [0, 1]


def seen_ago(pool, *ages_s):
    """The pool, with its engines observed so long ago."""
    pool.observed = [None if age is None else pool.now - age for age in ages_s]
    return pool


def test_an_engine_that_can_not_be_observed_any_more_is_left_out():
    pool = seen_ago(a_pool(a_member(failing="connection refused"), a_member(50)), 11.0, 0.3)

    placement = placed(pool)

    assert numbers(placement) == [1]
    (screened,) = placement.explain()["screened"]
    assert screened["reason"] == "can not be observed any more: connection refused"


@pytest.mark.parametrize("age_s", [1.0, 9.0, None])
def test_a_few_looks_that_failed_or_none_that_ever_succeeded_proves_nothing(age_s):
    pool = seen_ago(a_pool(a_member(failing="timed out"), a_member(50)), age_s, 0.3)

    assert numbers(placed(pool)) == [0, 1]


@pytest.mark.parametrize("gone", [2, 3])
def test_where_most_can_not_be_observed_the_observer_is_doubted(gone):
    dead = [a_member(failing="unreachable")] * gone
    pool = seen_ago(a_pool(*dead, *[a_member(50)] * (3 - gone)), *[11.0] * gone, *[0.3] * (3 - gone))

    assert set(numbers(placed(pool))) == {0, 1, 2}


def test_an_engine_that_may_be_gone_is_better_than_one_that_sleeps():
    pool = seen_ago(
        a_pool(a_member(asleep=True), a_member(failing="gone"), a_member(asleep=True)), 0.3, 11.0, 0.3
    )

    assert numbers(placed(pool)) == [1]


def test_a_sleeper_does_not_stand_in_for_busy_engines():
    pool = a_pool(a_member(asleep=True), a_member(waiting=99))

    refused = place(pool, profile("lmetric", screens=["least-request"]))

    assert isinstance(refused, Nobody)
    assert [dropped.reason for dropped in refused.dropped] == [
        "asleep or paused",
        "99 requests wait (limit 10)",
    ]


def test_judging_is_placing_without_picking():
    pool = a_pool(a_member(waiting=99), a_member(5), a_member(1), a_member(3))
    scheduler = Scheduler.of(profile("lmetric", screens=["least-request"]))

    judged = scheduler.judge(pool, Random(1))

    assert isinstance(judged, Judged)
    assert [endpoint.pod for endpoint in judged.pool.endpoints] == [f"pod/default/{at}" for at in (1, 2, 3)]
    assert (judged.best(0.0), judged.considered) == ([1, 2, 0], 4)
    assert judged.placed(judged.best(0.0)).explain() == scheduler.place(pool, Random(1)).explain()
    assert numbers(judged.placed([0, 2])) == [1, 3]


def test_the_best_of_some_take_turns_among_themselves():
    judged = Scheduler.of(Profile()).judge(a_pool(*[a_member()] * 16), Random(1))
    assert isinstance(judged, Judged)

    assert [judged.best(at / 3, [4, 9, 11])[0] for at in range(3)] == [4, 9, 11]
    assert judged.best(0.5, [4]) == [4]
    judged.pool.loads[:3] = [Load(3, 0), Load(2, 0), Load(1, 0)]
    assert judged.best(0.0, [0, 9, 1, 2]) == [9, 2, 1, 0]
    assert judged.best(0.5, []) == []


def test_what_is_kept_of_a_judgement_keeps_its_scores():
    judged = Scheduler.of(Profile()).judge(a_pool(a_member(), a_member(1), a_member(3)), Random(1))
    assert isinstance(judged, Judged)

    kept = judged.keep([2, 1])

    assert [endpoint.pod for endpoint in kept.pool.endpoints] == ["pod/default/2", "pod/default/1"]
    assert kept.totals == kept.columns[0].scores == [0.25, 0.5]
    assert kept.considered == 3


def test_an_empty_pool_can_be_judged():
    judged = Scheduler.of(profile("lmetric", screens=SCREENS)).judge(a_pool(), Random(1))

    assert isinstance(judged, Judged)
    assert (judged.best(0.0), judged.considered) == ([], 0)


SCREENS = ["least-request", "lora-affinity"]


@pytest.mark.parametrize("screens", [SCREENS, SCREENS[::-1]])
@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([{"waiting": 50, "adapters": ("x",)}, {"waiting": 50, "adapters": ("x",)}], "saturated"),
        ([{"adapters": ()}, {"adapters": ()}], "no-adapter"),
        ([{"waiting": 50, "adapters": ()}, {"adapters": ()}], "no-adapter"),
        ([{"waiting": 50, "adapters": ("x",)}, {"adapters": ()}], "saturated"),
    ],
)
def test_nobody_left_is_told_with_what_would_help(screens, members, reason):
    """The order of the screens decides nothing."""
    pool = a_pool(*[a_member(**member) for member in members], adapter="x")

    refused = place(pool, profile("lmetric", screens=screens))

    assert isinstance(refused, Nobody)
    assert refused.reason == reason


def test_a_single_endpoint_is_screened_and_not_scored():
    using = profile("prefix-cache", screens=["least-request"])
    pool = a_pool(a_member(waiting=1, cached=5))

    placement = placed(pool, using)

    assert (numbers(placement), placement.evidence.columns, pool.looked_up) == ([0], (), None)
    assert isinstance(place(a_pool(a_member(waiting=10)), using), Nobody)


def test_the_index_is_not_asked_about_what_is_screened_out():
    pool = a_pool(a_member(asleep=True, cached=1000), a_member(cached=7), a_member())

    evidence = placed(pool).evidence

    assert pool.looked_up is None
    assert evidence.pool.looked_up == ("approximate", [7, 0])


def test_candidates_tell_what_they_have_cached_where_somebody_asked():
    pool = [a_member(cached=600), a_member(cached=100)]

    assert [c.cached for c in placed(a_pool(*pool)).candidates] == [600, 100]
    assert [c.cached for c in placed(a_pool(*pool), profile("random")).candidates] == [None, None]


def test_a_profile_says_whether_token_ids_are_wanted():
    assert not Scheduler.of(Profile()).wants_exact
    assert not Scheduler.of(profile()).wants_exact
    assert Scheduler.of(profile("least-request", "kvcache-aware")).wants_exact
    assert Scheduler.of(profile(("lmetric", {"exact": True}))).wants_exact


def test_a_profile_of_another_version_is_refused():
    with pytest.raises(UnknownPlugin):
        Scheduler.of(profile("tomorrow"))
    with pytest.raises(msgspec.ValidationError):
        Scheduler.of(profile(("lmetric", {"x": 1})))


def test_of_a_large_pool_the_best_are_remembered():
    pool = a_pool(*[a_member(at % 100, cached=at) for at in range(LARGE + 1)])

    placement = placed(pool)

    evidence = placement.evidence
    assert placement.rows == len(evidence.pool) == len(evidence.totals) == REMEMBERED
    assert [candidate.endpoint for candidate in placement.candidates] == list(evidence.pool.endpoints[:5])
    assert sorted(evidence.totals, reverse=True)[:LIST_LENGTH] == evidence.totals[:LIST_LENGTH]
    assert evidence.columns[0].scores == evidence.totals
    assert len(placement.explain()["candidates"]) == REMEMBERED


def test_of_a_large_pool_of_equals_the_chosen_ones_are_remembered():
    placement = placed(a_pool(*[a_member()] * 200))

    assert {c.endpoint for c in placement.candidates} <= set(placement.evidence.pool.endpoints)
    assert placement.rows == REMEMBERED


def test_what_is_screened_out_of_a_large_pool_is_remembered_in_part():
    pool = a_pool(*[a_member(waiting=99)] * 100, a_member())
    using = profile("lmetric", screens=["least-request"])

    placement = placed(pool, using)

    assert (len(placement.evidence.dropped), placement.evidence.dropped_in_all) == (REMEMBERED, 100)
    assert placement.rows == REMEMBERED + 1
    nobody = place(a_pool(*[a_member(waiting=99)] * 100), using)
    assert isinstance(nobody, Nobody)
    assert (nobody.rows, nobody.considered) == (REMEMBERED, 100)


plugin_names = st.sampled_from([name for name, entry in CATALOGUE.items() if entry.scorer])
members = st.builds(
    a_member,
    requests=st.integers(0, 50),
    pending=st.integers(0, 10**6),
    cached=st.integers(0, 3000),
    exact=st.none() | st.integers(0, 3000),
    running=st.none() | st.integers(0, 50),
    waiting=st.none() | st.integers(0, 20),
    kv_usage=st.none() | st.floats(0, 1),
    ttft_s=st.none() | st.floats(0, 100),
    tpot_s=st.none() | st.floats(0, 10),
    asleep=st.booleans(),
    adapters=st.none() | st.sets(st.sampled_from("xyz")).map(tuple),
)


@given(
    st.lists(members, min_size=1, max_size=80),
    st.lists(st.tuples(plugin_names, st.floats(0.01, 100)), max_size=4, unique_by=lambda each: each[0]),
    st.sets(st.sampled_from(SCREENS)),
    st.sampled_from(["x", None]),
    st.integers(0, 2000),
)
def test_any_pool_is_placed_or_refused_with_reasons(rows, scorers, screens, adapter, prompt):
    using = profile(*[(name, {}, weight) for name, weight in scorers], screens=sorted(screens))

    found = place(a_pool(*rows, prompt=prompt, adapter=adapter), using)

    told = found.explain()
    assert msgspec.json.encode(told)
    assert found.why() == told["why"]
    if isinstance(found, Nobody):
        assert found.considered == len(told["screened"]) + told["screened_left_out"] == len(rows)
        return
    scores = [candidate.score for candidate in found.candidates]
    assert scores == sorted(scores, reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)
    left = len(rows) - found.evidence.dropped_in_all
    assert len(scores) == min(LIST_LENGTH, left)
    assert len(told["candidates"]) + told["candidates_left_out"] == left
    assert found.headline().isascii()
