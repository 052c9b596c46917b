"""Prompts computed by one engine and answered by another, by every connector, through the real Envoy."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from extproc.state.records import ConnectorName
from tests.envoy.apart import (
    CHAT,
    CONNECTORS,
    PATIENCE_S,
    PREFILLER,
    Apart,
    Leg,
    Pool,
    a_call,
    a_question,
    always,
    apart,
    disaggregated,
)
from tests.envoy.steering import ended
from tests.envoy.world import Answer, World, a_model_route, a_model_server, to, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENT_ID = "chosen-by-the-client"
MANY = 24
BY_HEADER = "x-pool"
CONTROL = {
    "kv_transfer_params": {"do_remote_prefill": True, "remote_host": "stolen"},
    "ec_transfer_params": {"remote_host": "stolen"},
    "bootstrap_host": "stolen",
    "bootstrap_port": 1,
    "bootstrap_room": 1,
    "routed_dp_rank": 7,
    "vllm_xargs": {"kv_transfer_params": {"remote_host": "stolen"}, "other": "stays"},
}
STEERING = {
    "x-override-bootstrap-host": "stolen",
    "x-data-parallel-rank": "7",
    "x-vllm-priority": "7",
    "x-kv-cache-source-host-port": "stolen:1",
    PREFILLER: "stolen:1",
}
PROMPTS: dict[str, Any] = {
    CHAT: {"messages": [{"role": "user", "content": "MARK"}]},
    "/v1/completions": {"prompt": "MARK"},
    "/v1/responses": {"input": "MARK"},
    "/v1/messages": {"messages": [{"role": "user", "content": "MARK"}]},
    "/inference/v1/generate": {"token_ids": [1, 2, 3], "note": "MARK"},
    "/v1/of/tomorrow": {"prompt": "MARK"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Apart]:
    kept = {"kvoy.io/client-control": "keep"}
    decode = {"matchLabels": {"app": "sidecar", "role": "decode"}}
    further = [
        disaggregated("lazy", "nixl"),
        disaggregated("keeping", "nixl", client_control="keep", **always("nixl")),
        a_model_server("kept", model="sim", annotations=kept, workloadSelector=decode),
        *(a_model_route(each, each, to(each)) for each in ("lazy", "keeping", "kept")),
        a_model_route(
            "00-paths",
            "paths",
            *(to(each, headers={BY_HEADER: {"exact": each}}) for each in (*CONNECTORS, "kept")),
        ),
    ]
    async with apart(further=further) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def stack(started: Apart) -> AsyncIterator[Apart]:
    """As it was: nothing is left of any request, and every engine lives."""
    yield started
    for pool in started.pools.values():
        await pool.rest()
        assert all(seat.engine.alive for seat in pool.seats.values())
    await started.idle()


def both(pool: Pool, mark: str) -> tuple[Leg | None, Leg]:
    """The prompt's leg and the answer's; behind a sidecar there is no prompt's leg of ours."""
    prompts, (answer,) = pool.legs(mark, "prefill"), pool.legs(mark, "decode")
    if pool.name == "sidecar":
        assert not prompts
        return None, answer
    (prompt,) = prompts
    assert prompt.seat.group == answer.seat.group
    return prompt, answer


@pytest.mark.parametrize("connector", CONNECTORS)
async def test_a_plain_answer(stack: Apart, connector: ConnectorName) -> None:
    pool, question = stack.pools[connector], a_question(connector)
    answer = await stack.world.send(CHAT, question.body, headers={"x-request-id": CLIENT_ID})

    assert answer.status == 200, answer.body
    prompt, decode = both(pool, question.mark)
    assert decode.seat.name == answer.served_by
    assert decode.json["messages"] == question.body["messages"]
    assert decode.json["max_tokens"] == 8
    ids = {leg.received.header("x-request-id") for leg in (prompt, decode) if leg is not None}
    assert ids == {answer.headers["x-request-id"]}
    assert CLIENT_ID not in ids
    assert decode.received.header("x-kvoy-client-request-id") == CLIENT_ID
    assert "x-kvoy-client-request-id" not in answer.headers
    if prompt is not None:
        assert prompt.json["messages"] == question.body["messages"]
        assert prompt.json["max_tokens"] == (8 if connector == "sglang" else 1)
        assert not prompt.json.get("stream")
    assert_transfer(pool, prompt, decode)


def assert_transfer(pool: Pool, prompt: Leg | None, decode: Leg) -> None:
    """Each leg says what its engine needs to hear, and that is all."""
    told = decode.transfer
    match pool.name:
        case "http" | "lmcache":
            assert not told
            assert prompt is not None
            assert not prompt.transfer
        case "sidecar":
            addresses = [f"127.0.0.1:{s.engine.port}" for s in pool.group(decode.seat.group, "prefill")]
            assert told in addresses
            assert "kv_transfer_params" not in decode.json
        case "sglang":
            assert prompt is not None
            assert told == prompt.transfer
            assert told["bootstrap_port"] == prompt.seat.engine.kv_port
        case "nixl":
            assert prompt is not None
            assert prompt.transfer["do_remote_decode"] is True
            assert told["do_remote_prefill"] is True
            assert told["remote_engine_id"] == prompt.seat.name
            assert told["remote_block_ids"]
        case "nixl-push" | "mooncake":
            assert prompt is not None
            assert prompt.transfer["do_remote_decode"] is True
            assert told["do_remote_prefill"] is True
            assert told["remote_engine_id"] == prompt.seat.name
            assert told.get("transfer_id") == prompt.transfer.get("transfer_id")


@pytest.mark.parametrize("connector", CONNECTORS)
async def test_a_streamed_answer(stack: Apart, connector: ConnectorName) -> None:
    pool, question = stack.pools[connector], a_question(connector, stream=True)
    async with a_call(stack.world, question.body) as call:
        got = await call.got()

    assert (got.status, got.whole, got.rest) == (200, True, b"")
    prompt, decode = both(pool, question.mark)
    *events, done, rest = got.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert not [chunk for chunk in chunks if "error" in chunk]
    said = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(said).startswith(f"{decode.seat.name} says "[:32])
    assert len([piece for piece in said if piece]) == 8
    assert decode.json["stream"] is True
    assert prompt is None or prompt.json["stream"] is False


@pytest.mark.parametrize("connector", CONNECTORS)
async def test_many_at_once(stack: Apart, connector: ConnectorName) -> None:
    world, pool, server = stack.world, stack.pools[connector], f"default/{connector}"
    ending = "sidecar" if connector == "sidecar" else "transferred"

    async def counts() -> list[float]:
        return [
            await world.metric("kvoy_requests_total", server=server, end="complete"),
            await world.metric("kvoy_handoffs_total", server=server, ending=ending),
            await world.metric("kvoy_prefills_total", server=server, result="computed"),
            await world.metric("kvoy_tokens_total", server=server, kind="prompt"),
            await world.metric("kvoy_prefill_tokens_total", server=server, kind="prompt"),
        ]

    await stack.idle()
    before = await counts()
    questions = [a_question(connector) for _ in range(MANY)]
    async with asyncio.TaskGroup() as tasks:
        sending = [tasks.create_task(world.send(CHAT, each.body)) for each in questions]
    answers = [task.result() for task in sending]

    assert [answer.status for answer in answers] == [200] * MANY
    legs = [both(pool, question.mark) for question in questions]
    assert len({answer.headers["x-request-id"] for answer in answers}) == MANY
    for prompt, decode in legs:
        assert_transfer(pool, prompt, decode)
    tokens = sum(answer.json["usage"]["prompt_tokens"] for answer in answers)
    computed = [0, 0] if connector == "sidecar" else [MANY, tokens]
    wanted = [MANY, MANY, computed[0], tokens, computed[1]]

    async def counted() -> bool:
        return [after - first for first, after in zip(before, await counts(), strict=True)] == wanted

    await until(counted, within=PATIENCE_S)


@pytest.mark.parametrize("connector", [each for each in CONNECTORS if each != "sidecar"])
async def test_the_decision_is_explained(stack: Apart, connector: ConnectorName) -> None:
    question = a_question(connector)
    answer = await stack.world.send(CHAT, question.body, headers={"x-request-id": CLIENT_ID})
    told = await ended(stack.world, answer)

    prompt, decode = both(stack.pools[connector], question.mark)
    assert prompt is not None
    handoff = told["handoff"]
    assert (handoff["group"].rpartition("=")[2] or handoff["group"])[-1] == decode.seat.group
    assert handoff["ending"] == "transferred"
    assert [(each["endpoint"], each["result"]) for each in handoff["tries"]] == [
        (f"default/{prompt.seat.name}", "computed")
    ]
    assert handoff["prefill"]["candidates"][0]["pod"] == f"default/{prompt.seat.name}"
    assert prompt.seat.name in handoff["why"]
    assert told["candidates"][0]["pod"] == f"default/{decode.seat.name}"
    assert told["client_request_id"] == CLIENT_ID
    assert told["outcome"]["end"] == "complete"


async def test_a_short_prompt_needs_no_prefill_pod(stack: Apart) -> None:
    answer = await stack.world.chat("lazy")
    told = await ended(stack.world, answer)

    assert told["handoff"]["prefill"] is None
    assert "the prompt is short" in told["handoff"]["why"]


async def test_a_prompt_that_the_decode_pod_has_cached_needs_none(stack: Apart) -> None:
    world, pool, about = stack.world, stack.pools["nixl"], uuid4().hex
    first, second = a_question("lazy", about), a_question("lazy", about)
    served = await world.send(CHAT, first.body)
    assert both(pool, first.mark)[0] is not None

    async def known() -> bool:
        told = [await _preview(world, admin, second.body) for admin in world.stack.admins]
        return all(each["handoff"]["prefill"] is None for each in told)

    await until(known, within=PATIENCE_S)
    answer = await world.send(CHAT, second.body)

    told = await ended(world, answer)
    assert answer.served_by == served.served_by
    assert not pool.legs(second.mark, "prefill")
    assert "it lacks but" in told["handoff"]["why"]
    assert answer.json["usage"]["prompt_tokens_details"]["cached_tokens"] > 900


async def _preview(world: World, admin: str, body: dict[str, Any]) -> dict[str, Any]:
    async with world.session.post(f"{admin}/route", json={"body": body}) as response:
        told: dict[str, Any] = await response.json()
        return told


async def steer(world: World, model: str, path: str) -> tuple[str, Answer]:
    """A request with everything that a client may try; its mark and the answer."""
    mark = uuid4().hex
    prompt = json.loads(json.dumps(PROMPTS[path]).replace("MARK", mark))
    body = {**prompt, "model": model, "max_tokens": 2, "max_output_tokens": 2, **CONTROL}
    return mark, await world.send(path, body, headers={**STEERING, BY_HEADER: model})


@pytest.mark.parametrize("path", PROMPTS)
async def test_clients_do_not_steer_engines(stack: Apart, path: str) -> None:
    for connector, pool in stack.pools.items():
        mark, answer = await steer(stack.world, connector, path)
        legs = pool.legs(mark)

        assert legs, (connector, answer.status, answer.body)
        for leg in legs:
            assert b"stolen" not in leg.received.body
            assert leg.json.get("vllm_xargs") == {"other": "stays"}
            assert "routed_dp_rank" not in leg.json
            headers = {key.lower(): value for key, value in leg.received.headers}
            assert not [key for key, value in headers.items() if headers.get(key) == STEERING.get(key)]


async def test_where_clients_may_steer_they_do(stack: Apart) -> None:
    mark, _ = await steer(stack.world, "kept", CHAT)

    (leg,) = stack.pools["sidecar"].legs(mark)
    assert {key: leg.json[key] for key in CONTROL} == CONTROL
    assert leg.received.header("x-override-bootstrap-host") == "stolen"


async def test_a_transfer_is_kvoys_even_where_clients_may_steer(stack: Apart) -> None:
    mark, answer = await steer(stack.world, "keeping", CHAT)

    assert answer.status == 400, "the rank that its header names does not exist"
    assert b"stolen" not in b"".join(leg.received.body for leg in stack.pools["nixl"].legs(mark))
