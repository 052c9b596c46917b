import json
from collections import Counter
from random import Random
from typing import Any

import pytest

from extproc.decide import Decider
from extproc.exchange import Decide, Decision, LocalAnswer, Routing
from extproc.explain import Journal
from extproc.request import Head
from extproc.reservations import Reservations
from extproc.state.records import StringMatch
from extproc.state.snapshot import EMPTY, Snapshot
from extproc.testing import a_head, a_pod, a_route, a_rule, a_server, a_snapshot

WORLD = a_snapshot(
    a_route(
        "r",
        a_rule("large", name="premium", headers={"user-type": StringMatch(exact="premium")}),
        a_rule("small"),
        model="m",
        adapters=["lora"],
    ),
    a_server("large", model="vendor/large"),
    a_server("small", model="vendor/small"),
    a_pod("l", "large", ip="10.0.0.1"),
    a_pod("s1", "small", ip="10.0.0.2"),
    a_pod("s2", "small", ip="10.0.0.3"),
)


class World:
    """A decider over a fixed snapshot."""

    def __init__(self, snapshot: Snapshot = WORLD) -> None:
        self.reservations = Reservations(lambda: 0.0)
        self.journal = Journal("extproc-0")
        self.decider = Decider(lambda: snapshot, self.reservations, self.journal, Random(1))

    def post(self, head: Head | None = None, **fields: Any) -> Decision:
        body = json.dumps({"model": "m", "messages": [], **fields}).encode()
        return self.decider.decide(Decide(head or a_head(), body))


def routed(decision: Decision) -> Routing:
    assert isinstance(decision, Routing), decision
    return decision


def reason(decision: Decision) -> str:
    assert isinstance(decision, LocalAnswer), decision
    return dict(decision.headers)["x-kvoy-reason"]


def test_premium_users_get_the_large_model_others_the_small_one() -> None:
    world = World()

    assert routed(world.post(a_head(user_type="premium"))).cluster == "model/default/large"
    assert routed(world.post()).cluster == "model/default/small"


def test_the_model_is_renamed_as_the_server_wants_it() -> None:
    body = routed(World().post()).body

    assert body is not None
    assert json.loads(body)["model"] == "vendor/small"


def test_an_adapter_keeps_its_name() -> None:
    assert routed(World().post(model="lora")).body is None


def test_choosing_counts_at_once() -> None:
    world = World()

    pods = Counter(routed(world.post()).placement.chosen.endpoint.pod for _ in range(10))

    assert pods == {"pod/default/s1": 5, "pod/default/s2": 5}
    assert world.reservations.counts() == pods


def test_every_reservation_has_its_own_number() -> None:
    world = World()

    assert len({routed(world.post()).reservation for _ in range(100)}) == 100


def test_the_other_pods_are_named_for_retries() -> None:
    placement = routed(World().post()).placement

    assert sorted(placement.destinations.split(",")) == ["10.0.0.2:8000", "10.0.0.3:8000"]


def test_rejections_reserve_nothing() -> None:
    world = World(a_snapshot(a_route("r", a_rule("s"), model="m"), a_server("s")))

    assert reason(world.post()) == "no-ready-pod"
    assert reason(world.post(model="other")) == "unknown-model"
    assert reason(world.post(model=["m"])) == "invalid-model"
    assert world.reservations.counts() == {}


def test_without_any_configuration_nothing_is_known() -> None:
    assert reason(World(EMPTY).post()) == "unknown-model"


def test_an_unparsed_path_is_placed_with_its_body_untouched() -> None:
    world = World()

    decision = routed(world.decider.decide(Decide(a_head("/tokenize"), None)))

    assert (decision.cluster, decision.body) == ("model/default/small", None)


def test_models_are_listed_from_the_configuration() -> None:
    answer = World().decider.decide(Decide(a_head("/v1/models", method="GET"), None))

    assert isinstance(answer, LocalAnswer)
    assert answer.status == 200
    listed = json.loads(answer.body)
    assert listed["object"] == "list"
    assert [(m["id"], m["object"], m["owned_by"]) for m in listed["data"]] == [
        ("m", "model", "kvoy"),
        ("lora", "model", "kvoy"),
    ]


def test_the_list_of_models_is_kvoys_to_answer_however_it_is_asked_for() -> None:
    for method, path in (("HEAD", "/v1/models"), ("GET", "/models")):
        assert isinstance(World().decider.decide(Decide(a_head(path, method=method), None)), LocalAnswer)


def test_decisions_are_kept_for_explanation() -> None:
    world = World()
    world.post(a_head(user_type="premium"))

    told = world.journal.explain("request-1")

    assert told is not None
    assert (told["route"], told["rule"], told["server"], told["pod"]) == (
        "default/r", "premium", "default/large", "default/l",
    )  # fmt: skip


def test_a_decision_that_fails_reserves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    world = World()
    for step in ("extproc.splice.rewrite", "extproc.explain.Journal.routed"):
        with monkeypatch.context() as patch:
            patch.setattr(step, broken)
            with pytest.raises(ZeroDivisionError):
                world.post()

    assert world.reservations.counts() == {}
