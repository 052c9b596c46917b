import json
from random import Random
from typing import Any

import pytest

from extproc.exchange import Decide
from extproc.plan import Plan, plan
from extproc.rejection import Rejection
from extproc.request import Head
from extproc.state.records import Disaggregation
from extproc.testing import a_part, a_pod, a_route, a_rule, a_server, a_snapshot

CHAT = "/v1/chat/completions"
STRICT = a_snapshot(a_route("r", a_rule("s"), model="m"), a_server("s", model="vendor/s"), a_pod("a", "s"))
TRUSTING = a_snapshot(
    a_route("r", a_rule("s"), model="m"), a_server("s", client_control=True), a_pod("a", "s")
)
DEADLY = {"kv_transfer_params": {"do_remote_prefill": True}}


def planned(snapshot: Any, path: str = CHAT, *, control: tuple[str, ...] = (), **fields: Any) -> Plan:
    body = json.dumps({"model": "m", "messages": [], **fields}).encode()
    found = plan(snapshot, Decide(Head("POST", path, {}, control=control, json=True), body), Random(1))
    assert isinstance(found, Plan), found
    return found


def test_what_would_steer_the_engine_does_not_reach_it() -> None:
    found = planned(STRICT, control=("x-override-rid",), **DEADLY)

    assert json.loads(found.body() or b"") == {"model": "vendor/s", "messages": []}
    assert found.removed == ("x-override-rid",)
    assert found.request is not None
    assert b"kv_transfer" not in found.request.body


def test_neither_where_nothing_else_is_to_be_edited() -> None:
    server = a_server("s", report_usage=False)
    snapshot = a_snapshot(a_route("r", a_rule("s"), model="m"), server, a_pod("a", "s"))

    assert json.loads(planned(snapshot, **DEADLY).body() or b"") == {"model": "m", "messages": []}
    assert planned(snapshot).body() is None


def test_neither_on_a_path_that_is_not_parsed() -> None:
    found = planned(STRICT, "/inference/v1/generate", **DEADLY)

    assert found.request is None
    assert json.loads(found.body() or b"") == {"model": "m", "messages": []}
    assert planned(STRICT, "/inference/v1/generate").body() is None


@pytest.mark.parametrize("path", [CHAT, "/inference/v1/generate"])
def test_a_server_may_let_its_clients_steer(path: str) -> None:
    found = planned(TRUSTING, path, control=("x-override-rid",), **DEADLY)

    assert found.body() is None
    assert found.removed == ()


def test_a_body_that_engines_may_read_otherwise_is_refused() -> None:
    head = Head("POST", "/inference/v1/generate", {}, json=True)

    refused = plan(STRICT, Decide(head, b'{"a": NaN, "kv_transfer_params": {}}'), Random(1))

    assert isinstance(refused, Rejection)
    assert refused.status == 400


def test_prefill_endpoints_answer_nobody() -> None:
    apart = a_server("s", apart=Disaggregation("nixl"))
    snapshot = a_snapshot(
        a_route("r", a_rule("s"), model="m"), apart, a_part("p", "s", "prefill"), a_part("d", "s", "decode")
    )

    found = planned(snapshot)

    assert [endpoint.pod for endpoint in found.endpoints] == ["pod/default/d"]
    assert [endpoint.pod for endpoint in found.prefill] == ["pod/default/p"]


def test_without_a_decode_pod_it_is_said_what_is_missing() -> None:
    apart = a_server("s", apart=Disaggregation("nixl"))
    snapshot = a_snapshot(a_route("r", a_rule("s"), model="m"), apart, a_part("p", "s", "prefill"))

    refused = plan(snapshot, Decide(Head("POST", CHAT, {}), b'{"model":"m","messages":[]}'), Random(1))

    assert isinstance(refused, Rejection)
    assert refused.reason == "no-ready-pod"
    assert "decode pod" in refused.message
