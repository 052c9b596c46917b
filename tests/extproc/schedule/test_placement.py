from random import Random

from extproc.schedule.placement import Nobody, Placement
from extproc.schedule.scheduler import Judged, Scheduler
from extproc.schedule.testing import a_member, a_pool
from extproc.state.records import Plugin, Profile

HELM = Profile(
    (Plugin("least-request"),), (Plugin("least-request", weight=3.0), Plugin("prefix-cache", weight=1.0))
)


def placed(*members, using=None, prompt=1000, notes=(), seed=1) -> Placement:
    pool = a_pool(*members, prompt=prompt, notes=notes)
    placement = Scheduler.of(using or Profile()).place(pool, Random(seed))
    assert isinstance(placement, Placement)
    return placement


def test_destinations_are_listed_best_first():
    placement = placed(a_member(4), a_member(0), a_member(1))

    assert placement.destinations == "10.0.0.1:8000,10.0.0.2:8000,10.0.0.0:8000"
    assert placement.chosen.endpoint.pod == "pod/default/1"


def test_the_margin_is_the_distance_to_the_next():
    assert placed(a_member(), a_member(3)).margin == 0.75
    assert placed(a_member()).margin is None


def test_the_reason_says_what_decided():
    cached = ", 0 of 1000 prompt tokens cached"
    assert placed(a_member(3)).why() == "the only ready endpoint"
    assert placed(a_member(1), a_member(3)).why() == (
        f"best by lmetric (1.00, next 0.50) of 2 ready endpoints: 1 in flight{cached}"
    )
    assert placed(a_member(1), a_member(1), a_member(3)).why() == (
        f"one of 2 equals of 3 ready endpoints: 1 in flight{cached}"
    )
    assert placed(a_member(5), a_member(6), using=Profile(scorers=())).why() == (
        "fewest requests in flight, equal in score, of 2 ready endpoints: 5 in flight"
    )


def test_the_reason_says_what_was_screened_out():
    asleep = a_member(asleep=True)

    assert placed(asleep, a_member()).why() == ("the only one of 2 ready endpoints that is not screened out")
    assert placed(asleep, a_member(), a_member(1)).why().endswith("prompt tokens cached; 1 screened out")


def test_the_reason_says_what_the_endpoints_would_do():
    def why(*members, role):
        placement = Scheduler.of(Profile()).place(a_pool(*members, role=role), Random(1))
        return placement.why()

    figures = "1 in flight, 0 of 1000 prompt tokens cached"
    assert why(a_member(), role="decode") == "the only ready decode endpoint"
    assert why(a_member(), role="prefill") == "the only ready prefill endpoint of the group"
    assert (
        why(a_member(1), a_member(1), role="decode")
        == f"one of 2 equals of 2 ready decode endpoints: {figures}"
    )


def test_the_reason_of_another_order_than_that_of_the_scores():
    judged = Scheduler.of(Profile()).judge(a_pool(a_member(), a_member(1)), Random(1))
    assert isinstance(judged, Judged)

    swapped, alone = judged.placed([1, 0]), judged.placed([1])

    assert swapped.margin == -0.5
    assert swapped.why().startswith("the only one with a prefill endpoint (0.50, next 1.00) of 2 ready")
    assert alone.why().startswith("best by lmetric (0.50) of 2 ready endpoints: 1 in flight")


def test_the_headline_is_short_and_for_machines():
    placement = placed(a_member(3, cached=800), a_member(1))

    assert placement.headline() == "pod=default/0 score=1.00 margin=0.50 cached=800/1000 in-flight=3"
    assert placed(a_member(3)).headline() == "pod=default/0 score=1.00 in-flight=3"


def test_an_explanation_tells_every_figure():
    seen = {"running": 1, "waiting": 2, "kv_usage": 0.5, "ttft_s": 0.25, "tpot_s": 0.02}
    placement = placed(
        a_member(3, pending=40, cached=500, **seen),
        a_member(waiting=99),
        a_member(1, cached=100, running=1),
        using=HELM,
        notes=["matched approximately"],
    )

    told = placement.explain()

    best, second = told.pop("candidates")
    assert told == {
        "why": "best by least-request and prefix-cache (0.77, next 0.12) of 3 ready endpoints: "
        "1 in flight, 100 of 1000 prompt tokens cached; 1 screened out",
        "considered": 3,
        "prompt": {"tokens": 1000, "adapter": None},
        "cached_by": "approximate",
        "scorers": [{"name": "least-request", "weight": 0.75}, {"name": "prefix-cache", "weight": 0.25}],
        "margin": placement.margin,
        "candidates_left_out": 0,
        "screened": [
            {
                "pod": "default/1",
                "rank": None,
                "address": "10.0.0.1:8000",
                "reason": "99 requests wait (limit 10)",
            }
        ],
        "screened_left_out": 0,
        "notes": ["matched approximately"],
    }
    assert (best["pod"], best["engine"]["kv_usage"]) == ("default/2", None)
    assert round(second["engine"].pop("age_s"), 3) == 0.3
    assert second == {
        "pod": "default/0",
        "rank": None,
        "address": "10.0.0.0:8000",
        "total": 0.125,
        "in_flight": 3,
        "pending_tokens": 40,
        "cached_tokens": 500,
        "scores": [
            {"scorer": "least-request", "score": 0.0, "weighted": 0.0, "raw": "3 in flight, 2 waiting"},
            {
                "scorer": "prefix-cache",
                "score": 0.5,
                "weighted": 0.125,
                "raw": "500 of 1000 tokens were sent there before",
            },
        ],
        "engine": {"failing": None, **seen},
    }


def test_an_explanation_lists_the_retries_in_their_order():
    placement = placed(*[a_member() for _ in range(8)], seed=5)

    told = placement.explain()["candidates"]

    assert [row["address"] for row in told[:5]] == placement.destinations.split(",")
    assert len({row["address"] for row in told}) == 8


def test_what_nobody_looked_up_is_not_told():
    told = placed(a_member(cached=5), a_member(), using=Profile(scorers=(Plugin("random"),))).explain()

    assert told["cached_by"] is None
    assert [row["cached_tokens"] for row in told["candidates"]] == [None, None]


def test_a_rank_of_a_pod_is_told_apart():
    pool = a_pool(a_member(), a_member(1))
    pod = pool.endpoints[0]
    pool.endpoints = [type(pod).of(pod.pod, pod.address, rank) for rank in range(2)]
    pool.cached_by = a_pool(a_member()).settled().cached_by

    placement = Scheduler.of(Profile()).place(pool, Random(1))

    assert isinstance(placement, Placement)
    assert placement.headline().startswith("pod=default/0#0 ")
    assert [(row["pod"], row["rank"]) for row in placement.explain()["candidates"]] == [
        ("default/0", 0),
        ("default/0", 1),
    ]


def test_nobody_explains_itself_too():
    pool = a_pool(a_member(waiting=12), a_member(waiting=15), notes=["a note"])

    refused = Scheduler.of(HELM).place(pool, Random(1))

    assert isinstance(refused, Nobody)
    why = "all 2 ready endpoints were screened out (the first: 12 requests wait (limit 10))"
    assert refused.why() == why
    assert refused.explain() == {
        "why": why,
        "considered": 2,
        "prompt": {"tokens": 1000, "adapter": None},
        "screened": [
            {"pod": f"default/{at}", "rank": None, "address": f"10.0.0.{at}:8000", "reason": reason}
            for at, reason in enumerate(["12 requests wait (limit 10)", "15 requests wait (limit 10)"])
        ],
        "screened_left_out": 0,
        "notes": ["a note"],
    }


def test_nobody_tells_of_the_role_and_of_groups_that_are_not_whole():
    dropped = Scheduler.of(HELM).place(a_pool(a_member(waiting=12), role="prefill"), Random(1))
    assert isinstance(dropped, Nobody)
    no_pair = Nobody("no-pair", dropped.prompt, (), 0, ())

    assert dropped.why() == "the only ready prefill endpoint was screened out: 12 requests wait (limit 10)"
    assert no_pair.why() == "no group has both a prefill and a decode endpoint ready"
