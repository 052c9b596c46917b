"""What a client gets when a request cannot be served, or should not be believed."""

import asyncio
import json

import pytest
from yarl import URL

from tests.envoy.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"


async def test_an_unknown_model_is_404(world: World) -> None:
    answer = await world.chat("nobody-serves-this")

    assert (answer.status, answer.reason, answer.error["code"]) == (404, "unknown-model", "model_not_found")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{not json", "invalid-json"),
        (b"[]", "invalid-json"),
        (b'{"model":"deepseek-r1","messages":["\xff\xfe"]}', "invalid-json"),
        (b'{"model":"deepseek-r1","messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "invalid-json"),
        (b'{"messages":[]}', "missing-model"),
        (b'{"model":["deepseek-r1"],"messages":[]}', "invalid-model"),
        (b'{"model":"deepseek-r1"}', "missing-input"),
        (b'{"model":"deepseek-r1","messages":"hello"}', "invalid-input"),
    ],
)
async def test_bad_bodies_are_400_with_a_reason(world: World, body: bytes, reason: str) -> None:
    answer = await world.send(CHAT, body, headers={"content-type": "application/json"})

    assert (answer.status, answer.reason) == (400, reason)
    assert answer.error["type"] == "invalid_request_error"


async def test_an_empty_body_is_400(world: World) -> None:
    answer = await world.send(CHAT)

    assert (answer.status, answer.reason) == (400, "invalid-json")


async def test_a_body_over_the_limit_is_413(world: World) -> None:
    body = {"model": "deepseek-r1", "messages": [{"role": "user", "content": "x" * (17 * 2**20)}]}

    answer = await world.send(CHAT, body)

    assert (answer.status, answer.reason) == (413, "body-too-large")
    assert answer.error["message"]


async def test_a_body_of_5_mb_is_routed(world: World) -> None:
    body = {"model": "deepseek-r1", "prompt": "x" * 5_000_000, "max_tokens": 1}

    answer = await world.send("/v1/completions", body, headers={"user-type": "premium"})

    # The engine's own limit answers: the whole body has reached it.
    assert answer.headers["x-engine-name"] == "big"
    received = (await world.engines["big"].requests())[-1]
    assert len(json.loads(received.body)["prompt"]) == 5_000_000


async def test_an_engines_own_error_passes_unchanged(world: World) -> None:
    body = {"model": "deepseek-r1", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1}

    answer = await world.send(CHAT, body, headers={"user-type": "premium"})

    assert answer.status == 400
    assert answer.reason is None
    assert answer.served_by == "big"


@pytest.mark.parametrize(
    "header",
    [
        "x-gateway-destination-endpoint",
        "x-gateway-destination-endpoint-subset",
        "x-kvoy-cluster",
        "x-kvoy-reason",
        "x-kvoy-anything",
        "X-Kvoy-Cluster",
    ],
)
async def test_a_client_cannot_steer(world: World, header: str) -> None:
    big = world.engines["big"]
    for value in (f"127.0.0.1:{big.port}", "model/default/big", "127.0.0.1:1"):
        answer = await world.chat("deepseek-r1", headers={header: value})
        assert answer.status == 200
        assert answer.served_by.startswith("small")
        received = (await world.engines[answer.served_by].requests())[-1]
        assert received.headers.get(header.lower()) != value, "the engine sees no client copy"


async def test_a_spoofed_header_on_an_unknown_model_leads_nowhere(world: World) -> None:
    answer = await world.chat("nobody-serves-this", headers={"x-kvoy-cluster": "model/default/big"})

    assert answer.status == 404


@pytest.mark.parametrize("count", [110, 190, 194, 198, 202, 500])
async def test_many_headers_pass_or_are_refused_clearly(world: World, count: int) -> None:
    answer = await world.chat("deepseek-r1", headers={f"h-{at}": "v" for at in range(count)})

    if count <= 110:
        assert answer.status == 200
    elif answer.status != 200:
        assert (answer.status, answer.reason) == (431, "headers-too-large")
        assert answer.error["message"]
    if count >= 202:
        assert answer.status != 200
    assert (await world.chat("deepseek-r1")).status == 200


@pytest.mark.parametrize(
    "path",
    ["//v1/chat/completions", "/v1/./chat/completions", "/v1/ch%61t/completions", "/v1/chat/completions/"],
)
async def test_another_spelling_of_a_path_does_not_dodge_the_rules(world: World, path: str) -> None:
    url = URL(world.stack.url + path, encoded=True)
    body = {"model": "vendor/small", "messages": []}

    async with world.session.post(url, json=body) as response:
        assert (response.status, response.headers["x-kvoy-reason"]) == (404, "unknown-model")


async def test_http_1_0_is_served(world: World) -> None:
    host, port = world.stack.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/models HTTP/1.0\r\n\r\n")

    answer = await reader.read()
    writer.close()

    assert b" 200 OK\r\n" in answer
    assert b"deepseek-r1" in answer
