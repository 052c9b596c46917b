"""Each plugin, as a client sees it: through the real Envoy, with engines that the collector observes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.envoy.steering import observed, scheduler
from tests.envoy.world import (
    Engine,
    World,
    a_model_route,
    a_model_server,
    a_pod_manifest,
    a_world,
    engines,
    to,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIM = ("--model", "sim")
SMALL_CACHE = ("--num-blocks", "512", "--max-model-len", "8000")
SCORERS = ("lmetric", "prefix-cache", "least-request", "random", "gpu-usage")
SYSTEM = {"role": "system", "content": "You answer in the style of a ship's log. " * 60}


def pool(name: str, app: str, *, annotations: dict[str, str]) -> dict[str, Any]:
    """A ModelServer of this name over the pods labelled with `app`."""
    return a_model_server(
        name, annotations=annotations, workloadSelector={"matchLabels": {"app": app}}, model="sim"
    )


def pod(engine: Engine, **labels: str) -> dict[str, Any]:
    manifest = a_pod_manifest(engine.name, "trio", engine.port)
    manifest["metadata"]["labels"] = labels
    return manifest


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools() -> AsyncIterator[World]:
    """Three equal engines (one with an adapter), and a slow and a fast one."""
    async with AsyncExitStack() as resources:
        t1, t2, t3, slow, fast = started = await engines(
            resources,
            ("t1", *SIM, "--lora", "sea", "--inter-token-s", "0.005", "--reply-tokens", "100000"),
            ("t2", *SIM, "--inter-token-s", "0.005", "--reply-tokens", "100000", *SMALL_CACHE),
            ("t3", *SIM, "--inter-token-s", "0.005", "--reply-tokens", "100000"),
            ("slow", *SIM, "--inter-token-s", "0.08", "--prefill-tokens-per-s", "500"),
            ("fast", *SIM, "--inter-token-s", "0.001"),
        )
        models = [*SCORERS, "adapters", "latency", "t1-alone"]
        world = await resources.enter_async_context(
            a_world(
                servers=[
                    *(pool(name, "trio", annotations=scheduler(name)) for name in SCORERS),
                    pool("adapters", "trio", annotations=scheduler("random", screens=("lora-affinity",))),
                    pool("latency", "pair", annotations=scheduler("least-latency")),
                    a_model_server("t1-alone", workloadSelector={"matchLabels": {"id": "t1"}}, model="sim"),
                ],
                pods=[
                    pod(t1, app="trio", id="t1"),
                    pod(t2, app="trio", id="t2"),
                    pod(t3, app="trio", id="t3"),
                    pod(slow, app="pair"),
                    pod(fast, app="pair"),
                ],
                routes=[
                    a_model_route(name, name, to(name), loras=["sea"] if name == "adapters" else None)
                    for name in models
                ],
            )
        )
        world.engines = {engine.name: engine for engine in started}
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def world(pools: World) -> AsyncIterator[World]:
    """The stack with every engine observed, idle again afterwards."""
    await observed(pools, pools.engines)
    yield pools
    await until(pools.idle)


@asynccontextmanager
async def streams(world: World, count: int, model: str, **fields: Any) -> AsyncIterator[None]:
    """So many long answers in progress for the length of a block."""
    body = {"model": model, "messages": [{"role": "user", "content": "go on"}], "stream": True, **fields}
    async with AsyncExitStack() as resources:
        for _ in range(count):
            response = await resources.enter_async_context(
                world.session.post(world.stack.url + "/v1/chat/completions", json=body)
            )
            assert response.status == 200
            resources.callback(response.close)
        yield


def question(at: int) -> list[dict[str, str]]:
    return [SYSTEM, {"role": "user", "content": f"Question {at}: where are we?"}]


@pytest.mark.parametrize("model", ["lmetric", "prefix-cache"])
async def test_requests_with_the_same_beginning_go_to_one_pod(world: World, model: str) -> None:
    before = [state["cache_entries"]["prefix"] for state in await world.states()]
    tally = await world.served(1, model, messages=question(0), max_tokens=2)

    async def heard_by_all() -> bool:
        now = [state["cache_entries"]["prefix"] for state in await world.states()]
        return len(now) == len(before) and all(n > b for n, b in zip(now, before, strict=True))

    await until(heard_by_all)
    await until(world.idle)
    for at in range(1, 40):
        tally += await world.served(1, model, messages=question(at), max_tokens=2)

    assert max(tally.values()) >= 36, tally


@pytest.mark.parametrize("model", ["lmetric", "least-request"])
async def test_the_idle_pods_are_preferred(world: World, model: str) -> None:
    async with streams(world, 8, "t1-alone", max_tokens=20_000):

        async def known_to_all() -> bool:
            return all(
                state["in_flight"]["all"]["default/t1"]["requests"] == 8 for state in await world.states()
            )

        await until(known_to_all)
        tally = await world.served(30, model, max_tokens=2)

    assert tally["t2"] + tally["t3"] >= 27, tally


async def test_the_pod_with_the_emptier_cache_is_preferred(world: World) -> None:
    full = world.engines["t2"]
    body = {
        "model": "sim",
        "messages": [{"role": "user", "content": "word " * 4000}],
        "max_tokens": 2000,
        "stream": True,
    }
    async with world.session.post(f"{full.url}/v1/chat/completions", json=body) as response:
        assert response.status == 200

        async def seen() -> bool:
            usage = [state["engines"]["default/t2"].get("kv_usage") for state in await world.states()]
            return all(share is not None and share > 0.3 for share in usage)

        await until(seen)
        tally = await world.served(30, "gpu-usage", max_tokens=2)
        response.close()

    assert tally["t2"] <= 3, tally


async def test_the_fast_pod_is_preferred(world: World) -> None:
    async def told() -> bool:
        """Both have answered lately, so that both have a latency."""
        for name in ("slow", "fast"):
            body = {"model": "sim", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 3}
            async with world.session.post(f"{world.engines[name].url}/v1/chat/completions", json=body) as r:
                assert r.status == 200
        latencies = [
            state["engines"][f"default/{name}"].get("ttft_s")
            for state in await world.states()
            for name in ("slow", "fast")
        ]
        return all(latency is not None for latency in latencies)

    await until(told)
    tally = await world.served(30, "latency", max_tokens=2)

    assert tally["fast"] >= 27, tally


async def test_no_request_reaches_a_pod_without_the_adapter(world: World) -> None:
    tally = await world.served(40, "sea", max_tokens=2)

    assert tally == {"t1": 40}


async def test_random_spreads_evenly(world: World) -> None:
    gate = asyncio.Semaphore(16)
    tally: Counter[str] = Counter()

    async def one() -> None:
        async with gate:
            answer = await world.chat("random", max_tokens=1)
            assert answer.status == 200, answer.body
            tally[answer.served_by] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(3000):
            tasks.create_task(one())

    assert all(900 <= tally[name] <= 1100 for name in ("t1", "t2", "t3")), tally
