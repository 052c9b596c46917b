import json
import struct
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest

from extproc.decide import TOKENS_DEADLINE_S, Decider
from extproc.exchange import Decide, Decision, LocalAnswer, Routing
from extproc.explain import Journal
from extproc.handoff.handoff import HandOff
from extproc.legs import Legs
from extproc.plan import Plan
from extproc.request import Head
from extproc.state.live import Engine
from extproc.state.records import Disaggregation, Plugin, Profile, StringMatch
from extproc.state.snapshot import EMPTY, Snapshot
from extproc.testing import a_fleet, a_head, a_part, a_pod, a_route, a_rule, a_server, a_snapshot
from extproc.tokens import Found, Miss, Question

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


class NoTokens:
    """Token ids that nobody may ask for."""

    async def ids(self, question: Question, within_s: float) -> Found | Miss:
        raise AssertionError("token ids were asked for")


class World:
    """A decider over a fixed snapshot."""

    def __init__(self, snapshot: Snapshot = WORLD, tokens: "SomeTokens | None" = None) -> None:
        self.fleet = a_fleet(lambda: 0.0)
        self.journal = Journal("extproc-0", lambda: 0.0)
        self.legs = Legs(self.fleet, lambda _: None)
        self.decider = Decider(
            self.fleet, self.legs, tokens or NoTokens(), self.journal, Random(1), lambda: 0.0
        )
        self.decider.adopt(snapshot)

    @property
    def in_flight(self) -> dict[str, int]:
        return {key: load.requests for key, load in self.fleet.reservations.counts().items()}

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
    assert world.in_flight == pods


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
    assert world.in_flight == {}


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
    assert (told["route"], told["rule"], told["server"], told["candidates"][0]["pod"]) == (
        "default/r", "premium", "default/large", "default/l",
    )  # fmt: skip


def test_a_decision_that_fails_reserves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    world = World()
    for step in ("extproc.splice.rewrite", "extproc.explain.Journal.decided"):
        with monkeypatch.context() as patch:
            patch.setattr(step, broken)
            with pytest.raises(ZeroDivisionError):
                world.post()

    assert world.in_flight == {}


EXACT = Profile(scorers=(Plugin("kvcache-aware"),))
SCREENED = Profile(screens=(Plugin("least-request"),))


def exactly(*pods: str) -> Snapshot:
    server = msgspec.structs.replace(a_server("s", model="vendor/s"), profile=EXACT)
    return a_snapshot(a_route("r", a_rule("s"), model="m"), server, *(a_pod(name, "s") for name in pods))


class SomeTokens:
    """Answers questions for token ids with what it is given; `asked` is called in between."""

    def __init__(self, answer: Found | Miss) -> None:
        self.answer = answer
        self.questions: list[Question] = []
        self.meanwhile: Callable[[], object] = lambda: None

    async def ids(self, question: Question, within_s: float) -> Found | Miss:
        assert within_s == TOKENS_DEADLINE_S
        self.questions.append(question)
        self.meanwhile()
        return self.answer


async def informed(world: World, body: bytes = b'{"model":"m","messages":[]}') -> Decision:
    planned = world.decider.decide(Decide(a_head(), body))
    assert isinstance(planned, Plan)
    return await world.decider.informed(planned)


async def test_exact_matching_asks_for_token_ids_first() -> None:
    tokens = SomeTokens(Found(struct.pack("<40I", *range(40)), "local", 0.001))
    world = World(exactly("a"), tokens)
    held: list[dict[str, int]] = []
    tokens.meanwhile = lambda: held.append(world.in_flight)

    placement = routed(await informed(world)).placement

    (question,) = tokens.questions
    assert (question.kind, question.model, question.tokenizer) == ("chat", "vendor/s", "vendor/s")
    assert question.engines == ["http://10.0.0.1:8000"]
    assert placement.evidence.pool.prompt.tokens == 40
    assert placement.explain()["notes"] == [
        "matched approximately, because no engine's KV events are followed"
    ]
    assert held == [{}], "nothing is reserved while token ids are awaited"
    assert world.in_flight == {"pod/default/a": 1}


async def test_without_token_ids_the_decision_is_made_all_the_same_and_says_why() -> None:
    world = World(exactly("a"), SomeTokens(Miss("it took longer than 50 ms")))

    placement = routed(await informed(world)).placement

    assert placement.explain()["notes"] == ["matched approximately, because it took longer than 50 ms"]


async def test_a_configuration_that_changes_meanwhile_is_the_one_in_force() -> None:
    tokens = SomeTokens(Miss("no tokeniser"))
    world = World(exactly("a"), tokens)
    tokens.meanwhile = lambda: world.decider.adopt(exactly("b"))

    assert routed(await informed(world)).placement.chosen.endpoint.pod == "pod/default/b"
    tokens.meanwhile = lambda: world.decider.adopt(EMPTY)
    assert reason(await informed(world)) == "unknown-model"


async def test_paths_whose_prompts_are_not_chat_are_placed_without_token_ids() -> None:
    tokens = SomeTokens(Miss("nobody asks"))
    world = World(exactly("a"), tokens)
    planned = world.decider.decide(Decide(a_head("/v1/embeddings"), b'{"model":"m","input":"x"}'))

    assert isinstance(planned, Plan)
    assert routed(await world.decider.informed(planned)).placement.considered == 1
    assert tokens.questions == []


def test_a_request_that_every_pod_refuses_is_told_to_come_back() -> None:
    server = msgspec.structs.replace(a_server("s"), profile=SCREENED)
    world = World(a_snapshot(a_route("r", a_rule("s"), model="m"), server, a_pod("a", "s")))
    world.fleet.engines.observe(Engine("pod/default/a", "10.0.0.1:8000", 0.0, waiting=99))

    refused = world.post()

    assert (reason(refused), refused.status) == ("saturated", 429)
    assert dict(refused.headers)["retry-after"] == "1"
    assert world.in_flight == {}
    told = world.journal.explain("request-1")
    assert told is not None
    assert [each["pod"] for each in told["screened"]] == ["default/a"]


def test_a_profile_of_another_version_leaves_the_former_in_force() -> None:
    world = World()
    strange = msgspec.structs.replace(a_server("s"), profile=Profile(scorers=(Plugin("of-the-future"),)))

    with pytest.raises(ValueError, match="of-the-future"):
        world.decider.adopt(a_snapshot(a_route("r", a_rule("s"), model="m"), strange, a_pod("a", "s")))

    assert routed(world.post()).cluster == "model/default/small"


def test_tokenisers_that_will_be_needed_are_known() -> None:
    assert World(exactly("a")).decider.tokenizers() == {"vendor/s"}
    assert World().decider.tokenizers() == set()


async def test_a_preview_decides_and_leaves_nothing_behind() -> None:
    world = World()

    told = await world.decider.preview(a_head(user_type="premium"), b'{"model":"m","messages":[]}')

    assert (told["server"], bytes(told["edits"]["model"])) == ("default/large", b'"vendor/large"')
    assert world.in_flight == {}
    assert world.journal.explain("request-1") is None
    refused = await world.decider.preview(a_head(), b"junk")
    assert refused["reason"] == "invalid-json"
    listed = await world.decider.preview(a_head("/v1/models", method="GET"), b"")
    assert listed["status"] == 200


async def test_a_preview_with_token_ids_reserves_nothing() -> None:
    world = World(exactly("a"), SomeTokens(Miss("no tokeniser")))

    told = await world.decider.preview(a_head(), b'{"model":"m","messages":[]}')

    assert told["notes"] == ["matched approximately, because no tokeniser"]
    assert world.in_flight == {}


LONG = [{"role": "user", "content": "All happy families are alike; " * 400}]


def a_world_apart(*parts: str, **terms: Any) -> World:
    """Parts such as ``"prefill p1 a"``: role, name, group."""
    pods = [part.split() for part in parts]
    server = a_server("s", model="vendor/s", apart=Disaggregation("nixl", **terms))
    members = [
        a_part(name, "s", role, group=group, ip=f"10.0.0.{at}")
        for at, (role, name, group) in enumerate(pods, 1)
    ]
    return World(a_snapshot(a_route("r", a_rule("s"), model="m"), server, *members))


def handed_off(decision: Decision | HandOff) -> HandOff:
    assert isinstance(decision, HandOff), decision
    return decision


def test_a_long_prompt_is_handed_from_one_endpoint_to_another_of_its_group() -> None:
    world = a_world_apart("prefill p1 a", "prefill p2 a", "decode d1 a", "decode d2 a", "prefill p3 b")

    handoff = handed_off(world.post(messages=LONG))

    assert {endpoint.group for endpoint in handoff.prefills} == {"a"}
    assert handoff.partners
    assert set(handoff.partners) <= {"10.0.0.3:8000", "10.0.0.4:8000"}
    assert json.loads(handoff.body)["model"] == "vendor/s"
    assert handoff.request_id == "request-1"
    assert world.in_flight == {
        handoff.prefills[0].key: 1,
        handoff.routing.placement.chosen.endpoint.key: 1,
    }


def test_a_short_prompt_is_computed_where_it_is_answered() -> None:
    world = a_world_apart("prefill p a", "decode d a")

    placed = routed(world.post())

    assert world.in_flight == {placed.placement.chosen.endpoint.key: 1}


def test_credentials_go_along_to_the_prefill_endpoint_and_no_other_header() -> None:
    world = a_world_apart("prefill p a", "decode d a")
    assert "authorization" in world.decider.wanted_headers

    handoff = handed_off(world.post(a_head(authorization="Bearer x", user_type="premium"), messages=LONG))

    assert handoff.headers == {"authorization": "Bearer x"}
    assert World().decider.wanted_headers == {"user-type"}


def test_a_request_without_an_id_gets_one_for_both_legs() -> None:
    world = a_world_apart("prefill p a", "decode d a")
    nameless = Head("POST", "/v1/chat/completions", {})

    one, two = (handed_off(world.post(nameless, messages=LONG)) for _ in range(2))

    assert one.request_id
    assert one.request_id != two.request_id
    assert ("x-request-id", one.request_id) in one.routing.headers


def test_a_hand_off_that_never_reached_envoy_leaves_no_count() -> None:
    world = a_world_apart("prefill p a", "decode d a")

    world.decider.forget(handed_off(world.post(messages=LONG)))

    assert world.in_flight == {}
    assert world.legs.open == 0


def test_without_a_decode_endpoint_nobody_answers() -> None:
    assert reason(a_world_apart("prefill p a").post(messages=LONG)) == "no-ready-pod"


def test_without_a_prefill_endpoint_the_decode_endpoint_does_it_all() -> None:
    world = a_world_apart("prefill p b", "decode d a")

    placed = routed(world.post(messages=LONG))

    assert placed.placement.chosen.endpoint.key == "pod/default/d"


def test_nor_does_anybody_where_decode_endpoints_shall_compute_no_prompts() -> None:
    world = a_world_apart("prefill p b", "decode d a", decode_alone=False)

    assert reason(world.post(messages=LONG)) == "no-pair"
    assert isinstance(world.post(), Routing), "a short prompt is none that anybody would hand off"


def test_a_pair_is_explained_and_shown_beforehand() -> None:
    world = a_world_apart("prefill p a", "decode d a")

    world.post(messages=LONG)

    told = world.journal.explain("request-1")
    assert told is not None
    assert told["handoff"]["group"] == "a"
    assert told["handoff"]["prefill"]["candidates"][0]["pod"] == "default/p"


async def test_a_preview_of_a_pair_reserves_nothing() -> None:
    world = a_world_apart("prefill p a", "decode d a")
    body = json.dumps({"model": "m", "messages": LONG}).encode()

    told = await world.decider.preview(a_head(), body)

    assert told["handoff"]["group"] == "a"
    assert world.in_flight == {}


def test_bursts_spread_over_both_roles() -> None:
    world = a_world_apart(*(f"{role} {role[0]}{at} a" for role in ("prefill", "decode") for at in range(4)))

    handoffs = [handed_off(world.post(messages=LONG)) for _ in range(16)]

    chosen = Counter(each.prefills[0].key for each in handoffs)
    answering = Counter(each.routing.placement.chosen.endpoint.key for each in handoffs)
    assert max(answering.values()) <= 6
    assert len(answering) == 4
    assert max(chosen.values()) <= 8
