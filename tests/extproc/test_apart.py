import json
from random import Random
from typing import Any

import pytest

from extproc import apart
from extproc.exchange import Decide, Routing
from extproc.plan import Plan, plan
from extproc.rejection import Rejection
from extproc.request import Head
from extproc.schedule import pair
from extproc.schedule.pair import Pair
from extproc.schedule.scheduler import Scheduler
from extproc.schedule.testing import a_member, a_pool
from extproc.state.records import Disaggregation, Profile
from extproc.testing import a_part, a_route, a_rule, a_server, a_snapshot


def planned(connector: str, path: str = "/v1/completions", **fields: Any) -> Plan:
    snapshot = a_snapshot(
        a_route("r", a_rule("s"), model="m"),
        a_server("s", apart=Disaggregation(connector, prefill_timeout_s=7.0)),
        a_part("p", "s", "prefill", ip="10.0.0.1"),
        a_part("d", "s", "decode", ip="10.0.0.2"),
    )
    body = json.dumps({"model": "m", "prompt": "one", "input": "one", **fields}).encode()
    head = Head("POST", path, {"authorization": "Bearer x", "user-type": "premium"}, "request-1")
    found = plan(snapshot, Decide(head, body), Random(1))
    assert isinstance(found, Plan)
    return found


def terms(found: Plan) -> Any:
    assert found.server.disaggregation is not None
    return apart.terms(found.server.disaggregation, found.request)


def test_one_prompt_with_one_answer_can_be_handed_off() -> None:
    assert terms(planned("nixl")).hops is None
    assert terms(planned("nixl")).decodes_alone


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (planned("nixl", n=2), "it sets `n`"),
        (planned("nixl", prompt=["one", "two"]), "it has several prompts"),
        (planned("nixl", "/v1/embeddings"), "embeddings requests have no answer"),
        (planned("nixl-push", "/v1/responses"), "can not match the two legs of responses requests"),
        (planned("nixl", "/v1/audio"), "its body is not parsed"),
    ],
)
def test_what_is_more_than_that_can_not(found: Plan, why: str) -> None:
    assert why in terms(found).hops
    assert apart.refusal(found) is None, "the decode endpoint can do it all"


def test_engines_that_can_only_do_one_half_refuse_what_can_not_be_handed_off() -> None:
    refused = apart.refusal(planned("sglang", n=2))

    assert isinstance(refused, Rejection)
    assert (refused.status, refused.reason) == (400, "not-divisible")
    assert "default/s" in refused.message
    assert "`n`" in refused.message
    assert apart.refusal(planned("sglang")) is None
    assert not terms(planned("sglang")).decodes_alone


def test_a_path_that_is_not_parsed_goes_to_the_decode_endpoint_of_such_engines_too() -> None:
    found = planned("sglang", "/v1/audio")

    assert apart.refusal(found) is None
    assert terms(found).decodes_alone


def test_a_hand_off_has_all_that_the_legs_need() -> None:
    found = planned("nixl")
    pool = a_pool(a_member(group="g"), role="decode")
    chosen = pair.choose(
        Scheduler.of(Profile()),
        pool,
        a_pool(a_member(group="g"), role="prefill"),
        terms(found),
        Random(1),
        0.0,
    )
    assert isinstance(chosen, Pair)
    assert chosen.prefill is not None
    assert found.request is not None
    routing = Routing("model/default/s", chosen, 2, None)

    made = apart.hand_off(found, found.request, chosen, chosen.prefill, routing, 1, "request-1")

    assert made.body == found.request.body, "where nothing was edited, it is the client's"
    assert made.headers == {"authorization": "Bearer x"}
    assert (made.reservation, made.routing.reservation) == (1, 2)
    assert made.partners == chosen.partners
    assert (made.timeout_s, made.request_id, made.path) == (7.0, "request-1", "/v1/completions")


@pytest.mark.parametrize(
    ("connector", "stays"), [("nixl", False), ("sidecar", False), ("mooncake", True), ("sglang", True)]
)
def test_a_worker_stays_with_what_goes_on_after_its_answer(connector: str, stays: bool) -> None:
    found = planned(connector)
    decodes, prefills = (
        a_pool(a_member(group="g"), role="decode"),
        a_pool(a_member(group="g"), role="prefill"),
    )
    chosen = pair.choose(Scheduler.of(Profile()), decodes, prefills, terms(found), Random(1), 0.0)
    assert isinstance(chosen, Pair)

    assert apart.stays(found.server, chosen) is stays
    assert not apart.stays(found.server, chosen.decode), "as where there is no hop"


def test_where_decode_endpoints_shall_compute_no_prompts_a_retry_stays_in_the_group() -> None:
    found = planned("nixl")
    strict = Disaggregation("nixl", decode_alone=False)

    assert not apart.terms(strict, found.request).strangers
    assert terms(found).strangers
