"""Prefill and decode apart on two real vLLMs, 0.32 or later, through `kvoy up` and the real Envoy.

They must serve the model ``tiny`` with blocks of 32 tokens, ``--enable-scale-out`` and NixlConnector or
NixlPushConnector, one as ``kv_producer`` and one as ``kv_consumer``; nobody else may use them.

    KVOY_REAL_PAIR=http://127.0.0.1:8110,http://127.0.0.1:8120    prefill engine, decode engine
    KVOY_REAL_CONNECTOR=nixl-push    or nixl, the default
    KVOY_REAL_SOURCE=eng-1@5610      for nixl-push: engine_id and VLLM_NIXL_SIDE_CHANNEL_PORT of the former
    KVOY_REAL_PREFILL_PID=4711       lets the last test kill it

What was measured is printed: run with ``-m real -s``.
"""

import asyncio
import json
import os
import random
import signal
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from benchmarks.processes import descendants
from tests.envoy.steering import ended, observed
from tests.envoy.world import (
    JSON,
    Answer,
    World,
    a_model_route,
    a_model_server,
    a_pod_manifest,
    a_world,
    free_port,
    to,
    until,
)

URLS = [url for url in os.environ.get("KVOY_REAL_PAIR", "").split(",") if url]
CONNECTOR = os.environ.get("KVOY_REAL_CONNECTOR", "nixl")
ENGINE_ID, _, KV_PORT = os.environ.get("KVOY_REAL_SOURCE", "").partition("@")
PREFILL_PID = int(os.environ.get("KVOY_REAL_PREFILL_PID", 0))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(len(URLS) != 2, reason="KVOY_REAL_PAIR names no prefill and no decode engine"),
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]
pulled = pytest.mark.skipif(CONNECTOR != "nixl", reason="the decode engine pulls with the connector nixl")
pushed = pytest.mark.skipif(CONNECTOR != "nixl-push", reason="it waits with the connector nixl-push")
kills = pytest.mark.skipif(not PREFILL_PID, reason="KVOY_REAL_PREFILL_PID names no engine to kill")

CHAT, COMPLETIONS, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
DONE = {"transferred", "left"} if CONNECTOR == "nixl-push" else {"transferred"}
"""Ends of a hand-off that went well: a decode engine that waits may have answered before we hear that."""
LONGEST = 2900
"""Words whose tokens are nearly all that the engines take."""
VOCABULARY = (
    "once upon a time the cache kept every block of the story that a pod had read "
    "and told it again to whoever asked for it with the same beginning so nobody had to wait for long"
)
KILLS = {"do_remote_prefill": True}
"""As ``kv_transfer_params`` of a client: without more, the engine's process ends."""


@dataclass(slots=True)
class Relay:
    """Between kvoy and the prefill engine: it knows the moment at which the prompt is computed."""

    port: int
    http: aiohttp.ClientSession
    computed: Callable[[bytes], Awaitable[bytes]] | None = None
    """What becomes of the prefill engine's answer."""

    async def pass_on(self, request: web.Request) -> web.Response:
        url, headers = URLS[0] + request.path_qs, {"x-request-id": request.headers.get("x-request-id", "")}
        if request.method != "POST":
            async with self.http.request(request.method, url) as response:
                return web.Response(
                    status=response.status, body=await response.read(), headers=kind(response)
                )
        body = await request.read()
        async with self.http.post(url, data=body, headers={**JSON, **headers}) as response:
            answer = await response.read()
            if self.computed is not None:
                answer = await self.computed(answer)
            return web.Response(status=response.status, body=answer, headers=kind(response))


def kind(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {"content-type": response.headers.get("content-type", "text/plain")}


@dataclass(slots=True)
class Pair:
    """Both engines, and a stack before them."""

    world: World
    relay: Relay

    async def figure(self, url: str, name: str, label: str = "") -> float:
        """A metric of an engine, summed over its series with `label`."""
        async with self.world.session.get(f"{url}/metrics") as response:
            lines = (await response.text()).splitlines()
        series = [line for line in lines if line.startswith(f"{name}{{") and label in line]
        assert series, f"the engine has no {name} {label}"
        return sum(float(line.rpartition(" ")[2]) for line in series)

    async def prefilled(self) -> float:
        """Prompts that the prefill engine has computed."""
        return await self.figure(URLS[0], "vllm:request_success_total")

    async def prefilling(self) -> bool:
        """The prefill engine computes."""
        return await self.figure(URLS[0], "vllm:num_requests_running") > 0

    async def idle(self, *urls: str) -> bool:
        """These engines, or both, have nothing to do, and kvoy knows."""
        for url in urls or URLS:
            for state in ("running", "waiting"):
                if await self.figure(url, f"vllm:num_requests_{state}"):
                    return False
        return await self.world.idle()

    async def received(self) -> float:
        """Prompt tokens that the decode engine had from elsewhere."""
        return await self.figure(
            URLS[1], "vllm:prompt_tokens_by_source_total", 'source="external_kv_transfer"'
        )

    async def healthy(self) -> bool:
        """Both engines."""
        for url in URLS:
            async with self.world.session.get(f"{url}/health") as response:
                if response.status != 200:
                    return False
        return True

    async def computed(self) -> float:
        """Prompt tokens that the decode engine computed itself."""
        return await self.figure(URLS[1], "vllm:prompt_tokens_by_source_total", 'source="local_compute"')

    async def plainly(self, path: str, **fields: Any) -> str:
        """What the decode engine says if it computes all by itself."""
        body = {**fields, "model": "tiny", "cache_salt": uuid.uuid4().hex}
        async with self.world.session.post(URLS[1] + path, json=body) as response:
            assert response.status == 200, await response.text()
            return said(path, await response.json())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    """Three ModelServers on one pair: every prompt is handed off, none is, or all are through the relay."""
    runner, port = None, free_port()
    async with aiohttp.ClientSession() as http:
        relay = Relay(port, http)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", relay.pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        prefill, decode = (urlsplit(url).port or 8000 for url in URLS)
        try:
            async with a_world(
                servers=[
                    a_server("apart", "direct", {"kvoy.io/prefill-threshold": "0"}),
                    a_server("alone", "direct", {"kvoy.io/prefill-threshold": str(2**31 - 1)}),
                    a_server("relayed", "relayed", {"kvoy.io/prefill-threshold": "0"}),
                ],
                pods=[
                    a_pod("real-p", prefill, "prefill", "direct"),
                    a_pod("real-d", decode, "decode", "direct", "relayed"),
                    a_pod("real-r", port, "prefill", "relayed"),
                ],
                routes=[a_model_route(name, name, to(name)) for name in ("apart", "alone", "relayed")],
            ) as world:
                await observed(world, ["real-p", "real-d", "real-r"])
                yield Pair(world, relay)
        finally:
            await runner.cleanup()


def a_server(name: str, by: str, annotations: dict[str, str]) -> dict[str, Any]:
    """A ModelServer with disaggregation over the pods that carry the label `by`."""
    group = {"groupKey": "group", "prefillLabels": {"role": "prefill"}, "decodeLabels": {"role": "decode"}}
    selector = {"matchLabels": {by: "yes"}, "pdGroup": group}
    server: dict[str, Any] = a_model_server(
        name,
        annotations=annotations,
        model="tiny",
        workloadSelector=selector,
        kvConnector={"type": CONNECTOR},
    )
    return server


def a_pod(name: str, port: int, role: str, *labels: str) -> dict[str, Any]:
    pod: dict[str, Any] = a_pod_manifest(name, "real", port)
    pod["metadata"]["labels"] |= {"group": "one", "role": role, **dict.fromkeys(labels, "yes")}
    if KV_PORT and role == "prefill":
        pod["metadata"]["annotations"] |= {"kvoy.io/kv-port": KV_PORT, "kvoy.io/kv-engine-id": ENGINE_ID}
    return pod


def text(rng: random.Random, words: int) -> str:
    """One that nobody has sent before, of a third more tokens than words."""
    return " ".join([str(uuid.UUID(int=rng.getrandbits(128))), *rng.choices(VOCABULARY.split(), k=words)])


def prompt(path: str, words: int) -> dict[str, Any]:
    """The fields that carry a fresh prompt."""
    fresh = text(random.Random(), words)
    if path == COMPLETIONS:
        return {"prompt": fresh}
    return {"messages": [{"role": "user", "content": fresh}]}


def said(path: str, answer: dict[str, Any]) -> str:
    """The text of a whole answer."""
    if path == MESSAGES:
        return "".join(block.get("text", "") for block in answer["content"])
    choice = answer["choices"][0]
    return str(choice["text"] if path == COMPLETIONS else choice["message"]["content"])


def events(answer: Answer) -> list[dict[str, Any]]:
    """The JSON events of a stream."""
    lines = answer.body.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def streamed(path: str, answer: Answer) -> str:
    """The text of a streamed answer."""
    if path == MESSAGES:
        deltas = [event["delta"] for event in events(answer) if event["type"] == "content_block_delta"]
        return "".join(delta["text"] for delta in deltas)
    choices = [choice for event in events(answer) for choice in event["choices"]]
    if path == COMPLETIONS:
        return "".join(choice["text"] for choice in choices)
    return "".join(choice["delta"].get("content") or "" for choice in choices)


TIMES = 12
"""Requests of each kind that are measured."""
LENGTHS = (1, 5, 12, 30, 31, 64, 100, 200, 333, 700, 1400, 2800)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES])
async def test_answers_are_those_of_one_engine(pair: Pair, path: str) -> None:
    for words in LENGTHS:
        asked = {**prompt(path, words), "max_tokens": 24, "temperature": 0}
        expected = await pair.plainly(path, **asked)

        received, computed = await pair.received(), await pair.computed()
        for stream in (False, True):
            body = {**asked, "model": "apart", "stream": stream, "cache_salt": uuid.uuid4().hex}
            answer = await pair.world.send(path, body)
            assert answer.status == 200, answer.body
            told = await ended(pair.world, answer)
            assert told["handoff"]["ending"] in DONE, told["handoff"]
            assert (streamed(path, answer) if stream else said(path, answer.json)) == expected, words
        assert await pair.received() - received > 2 * words
        assert await pair.computed() == computed
        assert expected


async def test_many_at_once(pair: Pair) -> None:
    asked = [{**prompt(CHAT, 20 * at), "max_tokens": 8, "temperature": 0} for at in range(24)]
    expected = [await pair.plainly(CHAT, **each) for each in asked]

    answers = await asyncio.gather(*(pair.world.chat("apart", **each) for each in asked))
    assert [said(CHAT, answer.json) for answer in answers] == expected
    for answer in answers:
        assert (await ended(pair.world, answer))["handoff"]["ending"] in DONE


DEADLY: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": [{"role": "user", "content": "hi"}], "kv_transfer_params": KILLS}),
    "chat, by another name": (
        CHAT,
        {"messages": [{"role": "user", "content": "hi"}], "vllm_xargs": {"kv_transfer_params": KILLS}},
    ),
    "completions": (COMPLETIONS, {"prompt": "hi", "kv_transfer_params": KILLS}),
    "messages": (MESSAGES, {"messages": [{"role": "user", "content": "hi"}], "kv_transfer_params": KILLS}),
    "responses": ("/v1/responses", {"input": "hi", "max_output_tokens": 4, "kv_transfer_params": KILLS}),
    "generate": (
        "/inference/v1/generate",
        {
            "token_ids": [5, 6, 7, 8],
            "sampling_params": {"max_tokens": 4, "extra_args": {"kv_transfer_params": KILLS}},
        },
    ),
}


@pytest.mark.parametrize("model", ["apart", "alone"])
@pytest.mark.parametrize("way", DEADLY)
async def test_a_body_that_would_kill_an_engine_is_answered(pair: Pair, way: str, model: str) -> None:
    path, body = DEADLY[way]
    limit = {} if path in ("/v1/responses", "/inference/v1/generate") else {"max_tokens": 4}

    answer = await pair.world.send(path, {**body, **limit, "model": model if way != "generate" else "tiny"})
    assert answer.status == 200, answer.body
    assert await pair.healthy()
    assert (await pair.world.chat(model)).status == 200


async def test_clients_that_leave_free_the_prefill_engine(pair: Pair) -> None:
    before, clients = await pair.prefilled(), 8
    async with asyncio.TaskGroup() as tasks:
        asking = [
            tasks.create_task(pair.world.chat("apart", **prompt(CHAT, LONGEST))) for _ in range(clients)
        ]
        await until(pair.prefilling)
        for client in asking:
            client.cancel()

    await until(pair.idle, within=60)
    computed = await pair.prefilled() - before
    print(f"{computed:.0f} of {clients} prompts were computed though nobody waited")
    assert computed < clients / 2
    assert (await pair.world.chat("apart")).status == 200


@pulled
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_cache_that_is_gone_is_computed_by_the_decode_engine(pair: Pair, path: str) -> None:
    pair.relay.computed = gone
    asked = {**prompt(path, 300), "max_tokens": 12, "temperature": 0}
    answer = await pair.world.send(path, {**asked, "model": "relayed"})

    assert answer.status == 200, answer.body
    assert said(path, answer.json) == await pair.plainly(path, **asked)
    assert await pair.healthy()


@pulled
async def test_a_stream_whose_cache_is_gone_ends_with_the_engines_error(pair: Pair) -> None:
    pair.relay.computed = gone
    answer = await pair.world.chat("relayed", **prompt(CHAT, 300), stream=True)

    print(answer.status, answer.body.decode())
    assert answer.status == 200
    assert "error" in events(answer)[-1]
    assert await pair.healthy()


async def gone(answer: bytes) -> bytes:
    """As of a prefill engine that has ended since: nobody listens there."""
    params = json.loads(answer)["kv_transfer_params"]
    assert params["do_remote_prefill"]
    fresh = {**params, "remote_engine_id": uuid.uuid4().hex, "remote_port": free_port()}
    return json.dumps({**json.loads(answer), "kv_transfer_params": fresh}).encode()


@pulled
@pytest.mark.parametrize("tokens", [64, 128, 256, 512, 1024, 2048])
async def test_what_a_hop_costs(pair: Pair, tokens: int) -> None:
    taken: dict[str, list[float]] = {"apart": [], "alone": [], "prefill": []}
    received = await pair.received()
    for _ in range(TIMES):
        for model in ("apart", "alone"):
            seconds, request_id = await first_token(pair.world, model, tokens)
            taken[model].append(seconds)
            if model == "apart":
                (computed,) = (await pair.world.explain(request_id))["handoff"]["tries"]
                taken["prefill"].append(computed["seconds"])

    apart, alone, prefill = (1000 * statistics.median(each) for each in taken.values())
    print(f"{tokens} tokens: {apart:.0f} ms handed off, of which prefill {prefill:.0f}; {alone:.0f} ms alone")
    assert await pair.received() - received == TIMES * tokens


async def first_token(world: World, model: str, tokens: int) -> tuple[float, str]:
    """Seconds until the first token of an answer to a fresh prompt of so many, and the request's id."""
    ids = [random.randrange(100, 1000) for _ in range(tokens)]
    body = {"model": model, "prompt": ids, "stream": True, "max_tokens": 2, "ignore_eos": True}
    began = time.monotonic()
    async with world.session.post(world.stack.url + COMPLETIONS, json=body) as response:
        assert response.status == 200
        await response.content.readline()
        taken = time.monotonic() - began
        await response.read()
        return taken, response.headers["x-request-id"]


def kill() -> None:
    """The prefill engine, of which a server and the engine proper are processes of their own."""
    for pid in (PREFILL_PID, *descendants(PREFILL_PID)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@kills
@pulled
async def test_a_prefill_engine_that_dies_between_the_legs(pair: Pair) -> None:
    async def die(answer: bytes) -> bytes:
        kill()
        return answer

    pair.relay.computed = die
    asked = {**prompt(CHAT, 300), "max_tokens": 12, "temperature": 0}
    answer = await pair.world.chat("relayed", **asked)

    assert answer.status == 200, answer.body
    assert said(CHAT, answer.json) == await pair.plainly(CHAT, **asked)
    assert (await ended(pair.world, answer))["outcome"]["status"] == 200
    assert (await pair.world.chat("apart")).status == 200


@kills
@pushed
async def test_a_prefill_engine_that_dies_while_a_decode_engine_waits(pair: Pair) -> None:
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(pair.world.chat("apart", **prompt(CHAT, LONGEST)))
        await until(pair.prefilling)
        kill()
    answer = asking.result()

    assert (answer.status, answer.reason) == (502, "prefill-failed")
    await until(lambda: pair.idle(URLS[1]))
    assert (await pair.world.chat("apart")).status == 200
