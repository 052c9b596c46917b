"""Which model serves a request, as a client of the real Envoy sees it."""

import json
import time
from typing import Any

import pytest

from tests.envoy.world import World, a_model_route, a_model_server, a_pod_manifest, to

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_premium_users_get_the_big_model_and_others_the_small_one(world: World) -> None:
    premium = await world.served(4, "deepseek-r1", headers={"user-type": "premium"})
    others = await world.served(6, "deepseek-r1", headers={"user-type": "basic"})

    assert set(premium) == {"big"}
    assert set(others) == {"small-1", "small-2"}


async def test_the_body_is_rewritten_for_the_server_and_its_length_is_right(world: World) -> None:
    answer = await world.chat("deepseek-r1", headers={"user-type": "premium"})

    assert answer.json["model"] == "vendor/big"
    received = (await world.engines["big"].requests())[-1]
    assert json.loads(received.body)["model"] == "vendor/big"
    assert received.headers["content-length"] == str(len(received.body))


async def test_an_adapter_name_reaches_the_engine_unchanged(world: World) -> None:
    answer = await world.chat("lora-a")

    assert answer.status == 200
    assert answer.json["model"] == "lora-a"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "text"}),
        ("/v1/completions", {"prompt": ["one", "two"]}),
        ("/v1/completions", {"prompt": [1, 2, 3]}),
        ("/v1/completions", {"prompt": [[1, 2], [3, 4]]}),
        ("/v1/embeddings", {"input": ["text"]}),
        ("/v1/responses", {"input": "text"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}),
        ("/v1/rerank", {"query": "q", "documents": ["a", "b"]}),
    ],
)
async def test_every_api_is_routed(world: World, path: str, body: dict[str, Any]) -> None:
    answer = await world.send(path, {"model": "deepseek-r1", **body}, headers={"user-type": "premium"})

    assert answer.status == 200, answer.body
    assert answer.served_by == "big"


async def test_models_are_listed_from_the_configuration(world: World) -> None:
    answer = await world.send("/v1/models", method="GET")

    assert answer.status == 200
    assert [model["id"] for model in answer.json["data"]] == ["deepseek-r1", "lora-a"]


async def test_a_path_that_is_not_parsed_is_routed_by_headers(world: World) -> None:
    answer = await world.send(
        "/tokenize", {"model": "vendor/big", "prompt": "hello"}, headers={"user-type": "premium"}
    )

    assert answer.status == 200, answer.body
    assert answer.served_by == "big"


async def test_a_decision_is_explained_under_the_request_id_of_the_answer(world: World) -> None:
    answer = await world.chat("deepseek-r1", headers={"user-type": "premium"})

    told = await world.explain(answer.headers["x-request-id"])

    assert (told["route"], told["rule"], told["server"], told["candidates"][0]["pod"]) == (
        "default/deepseek", "#0", "default/big", "default/big",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("header_value", "server"),
    [
        ("gold", "big"),
        ("golden", "small"),
        ("team-a", "big"),
        ("team", "small"),
        ("x42y", "big"),
        ("x4y", "small"),
        (None, "small"),
    ],
)
async def test_headers_match_exactly_by_prefix_and_by_regex(
    world: World, header_value: str | None, server: str
) -> None:
    rules = [
        to("big", headers={"tier": match})
        for match in ({"exact": "gold"}, {"prefix": "team-"}, {"regex": "[0-9]{2}"})
    ]
    async with world.extra(a_model_route("tiers", "tiers", *rules, to("small"))):
        headers = {} if header_value is None else {"tier": header_value}
        served = await world.served(1, "tiers", headers=headers)

    assert all(name.startswith(server) for name in served)


async def test_the_uri_matches_without_the_query(world: World) -> None:
    route = a_model_route("uri", "uri", to("big", uri={"exact": "/v1/completions"}), to("small"))
    async with world.extra(route):
        completion = await world.send("/v1/completions?debug=1", {"model": "uri", "prompt": "x"})
        chat = await world.chat("uri")

    assert (completion.served_by, chat.served_by[:5]) == ("big", "small")


async def test_weights_divide_the_requests(world: World) -> None:
    async with world.extra(a_model_route("weights", "weights", to(("big", 75), ("small", 25)))):
        served = await world.served(400, "weights", max_tokens=1)

    assert abs(served["big"] / 400 - 0.75) < 0.1


async def test_a_younger_route_of_the_same_model_waits_behind_the_older(world: World) -> None:
    old = a_model_route("z-old", "aged", to("big"))
    young = a_model_route("a-young", "aged", to("small"))
    old["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z"
    young["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z"
    async with world.extra(young, old):
        assert set(await world.served(5, "aged")) == {"big"}


async def test_an_edit_is_live_within_a_second(world: World) -> None:
    took = []
    async with world.extra(a_model_route("edited", "edited", to("big"))) as edit:
        for turn in range(6):
            target = "small" if turn % 2 == 0 else "big"
            started = time.monotonic()
            await edit(a_model_route("edited", "edited", to(target)))
            took.append(time.monotonic() - started)
            served = await world.served(5, "edited", max_tokens=1)
            assert all(name.startswith(target) for name in served)

    # The machine may be busy with other things during some of the edits, not during all.
    assert min(took) < 1.0


async def test_pods_and_servers_come_and_go_without_an_error(world: World) -> None:
    port = world.engines["big"].port
    fixed = [a_model_route("moving", "moving", to("moving"))]
    server = a_model_server("moving", model="vendor/big")
    async with world.extra(*fixed, server, a_pod_manifest("m-0", "moving", port)) as edit:
        for turn in range(1, 5):
            await edit(*fixed, server, a_pod_manifest(f"m-{turn}", "moving", port))
            answer = await world.chat("moving")
            assert (answer.status, answer.served_by) == (200, "big")
            told = await world.explain(answer.headers["x-request-id"])
            assert told["candidates"][0]["pod"] == f"default/m-{turn}"
