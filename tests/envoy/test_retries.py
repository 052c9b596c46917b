"""A pod that fails costs the client nothing while another one can serve."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.envoy.world import (
    World,
    a_model_route,
    a_model_server,
    a_pod_manifest,
    an_engine,
    free_port,
    to,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

CERTIFICATES = Path(__file__).parents[1] / "controller" / "xds" / "tls"


def a_pool(name: str, *ports: int, model: str = "vendor/big", **spec: Any) -> list[dict[str, Any]]:
    """A route and a server of this name over pods at these ports."""
    pods = [a_pod_manifest(f"{name}-{at}", name, port) for at, port in enumerate(ports)]
    return [a_model_route(name, name, to(name)), a_model_server(name, model=model, **spec), *pods]


async def outcomes(world: World, times: int, model: str) -> Counter[tuple[int, str | None]]:
    answers = [await world.chat(model, max_tokens=1) for _ in range(times)]
    return Counter((answer.status, answer.headers.get("x-engine-name")) for answer in answers)


async def test_a_dead_pod_is_passed_over(world: World) -> None:
    big = world.engines["big"]
    async with world.extra(*a_pool("dead", free_port(), big.port)):
        assert await outcomes(world, 20, "dead") == {(200, "big"): 20}


async def test_a_pod_that_answers_503_is_passed_over(world: World) -> None:
    await world.engines["small-1"].faults({"kind": "status", "status": 503})

    seen = await outcomes(world, 20, "deepseek-r1")

    assert seen == {(200, "small-2"): 20}


async def test_a_pod_that_resets_before_its_answer_is_passed_over(world: World) -> None:
    await world.engines["small-1"].faults({"kind": "reset"})

    assert await outcomes(world, 20, "deepseek-r1") == {(200, "small-2"): 20}


async def test_the_retry_is_counted(world: World) -> None:
    before = await world.metric("kvoy_requests_moved_total", server="default/small")
    await world.engines["small-1"].faults({"kind": "status", "status": 503})

    await outcomes(world, 10, "deepseek-r1")
    await world.engines["small-1"].faults()

    deadline = time.monotonic() + 20
    while await world.metric("kvoy_requests_moved_total", server="default/small") == before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_every_pod_failing_is_the_engines_own_answer(world: World) -> None:
    for name in ("small-1", "small-2"):
        await world.engines[name].faults({"kind": "status", "status": 503})

    answer = await world.chat("deepseek-r1")

    assert answer.status == 503


async def test_every_pod_dead_is_503_in_openai_shape(world: World) -> None:
    async with world.extra(*a_pool("none-alive", free_port(), free_port())):
        answer = await world.chat("none-alive")

    assert (answer.status, answer.reason) == (503, "upstream-unavailable")
    assert answer.error["message"]


async def test_a_server_without_pods_is_503(world: World) -> None:
    async with world.extra(a_model_route("empty", "empty", to("empty")), a_model_server("empty")):
        answer = await world.chat("empty")

    assert (answer.status, answer.reason) == (503, "no-ready-pod")
    assert answer.headers["retry-after"] == "1"
    assert answer.error["message"]


async def test_retry_attempts_are_honoured(world: World) -> None:
    big = world.engines["big"]
    received = len(await big.requests())
    await big.faults({"kind": "status", "status": 503})
    pool = a_pool("stubborn", big.port, trafficPolicy={"retry": {"attempts": 4, "retryInterval": "10ms"}})
    async with world.extra(*pool):
        assert (await world.chat("stubborn")).status == 503

    assert len(await big.requests()) - received == 5


async def test_the_timeout_bounds_the_wait_for_an_answer(world: World) -> None:
    big = world.engines["big"]
    await big.faults({"kind": "hang"})
    policy = {"timeout": "500ms", "retry": {"attempts": 0}}
    async with world.extra(*a_pool("patient", big.port, trafficPolicy=policy)):
        answer = await world.chat("patient")

    assert (answer.status, answer.reason) == (504, "upstream-timeout")
    assert answer.error["message"]


async def test_the_timeout_leaves_a_stream_that_has_begun_alone(world: World) -> None:
    engine = world.engines["small-1"]
    policy = {"timeout": "500ms", "retry": {"attempts": 0}}
    async with world.extra(*a_pool("slow", engine.port, model="vendor/small", trafficPolicy=policy)):
        answer = await world.chat("slow", stream=True, max_tokens=300)

    assert answer.status == 200
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_a_hanging_pod_is_left_for_another(world: World) -> None:
    await world.engines["small-1"].faults({"kind": "hang"})
    ports = (world.engines["small-1"].port, world.engines["small-2"].port)
    async with world.extra(
        *a_pool("hanging", *ports, model="vendor/small", trafficPolicy={"timeout": "300ms"})
    ):
        assert await outcomes(world, 4, "hanging") == {(200, "small-2"): 4}


async def test_https_pods_are_reached_and_verified(world: World) -> None:
    tls = ("--tls-cert", str(CERTIFICATES / "engine.pem"), "--tls-key", str(CERTIFICATES / "engine.key"))
    port = free_port()
    async with an_https_engine(port, *tls):
        trusted = {
            "kvoy.io/tls-ca-file": str(CERTIFICATES / "ca.pem"),
            "kvoy.io/tls-server-name": "engine.test",
        }
        wrong_name = {**trusted, "kvoy.io/tls-server-name": "other.test"}
        for annotations, status in ((trusted, 200), (wrong_name, 503), ({}, 503)):
            async with world.extra(
                *a_pool("secure", port, model="sim-model", protocol="https", annotations=annotations)
            ):
                assert (await world.chat("secure")).status == status


def an_https_engine(port: int, *options: str):  # type: ignore[no-untyped-def]
    return an_engine("secure", "--inter-token-s", "0", *options, port=port, scheme="https")
