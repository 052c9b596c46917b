"""Data-parallel ranks, as a client sees them: each is an endpoint of its own behind one address."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.envoy.steering import cached, conversation, ended, name, observed, scheduler
from tests.envoy.world import (
    World,
    a_model_route,
    a_model_server,
    a_pod_manifest,
    a_world,
    an_engine,
    to,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

TWO_RANKS = {"kvoy.io/data-parallel-size": "2"}
ENDPOINTS = {"dp#0", "dp#1"}
SIM = ("--model", "sim", "--data-parallel-size", "2", "--inter-token-s", "0.001")
EVENTS = ("--kv-events", "0", "--kv-events-replay", "0")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ranks() -> AsyncIterator[World]:
    """One pod with two ranks, chosen by default and by exact matching."""
    async with AsyncExitStack() as resources:
        engine = await resources.enter_async_context(
            an_engine(
                "dp", "--model", "sim", "--data-parallel-size", "2", "--inter-token-s", "0.001", *EVENTS
            )
        )
        profiles = {"usual": {}, "exact": scheduler("kvcache-aware")}
        world = await resources.enter_async_context(
            a_world(
                servers=[
                    a_model_server(
                        model,
                        model="sim",
                        annotations=TWO_RANKS | profile,
                        workloadSelector={"matchLabels": {"app": "dp"}},
                    )
                    for model, profile in profiles.items()
                ],
                pods=[a_pod_manifest("dp", "dp", engine.port)],
                routes=[a_model_route(model, model, to(model)) for model in profiles],
            )
        )
        world.engines = {"dp": engine}
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def world(ranks: World) -> AsyncIterator[World]:
    """The stack with both ranks observed, idle again afterwards."""
    await observed(ranks, ENDPOINTS, kv_events=True)
    yield ranks
    await until(ranks.idle)


async def test_each_rank_is_an_endpoint_with_figures_of_its_own(world: World) -> None:
    for state in await world.states():
        assert {one["engine"] for one in state["endpoints"]["default/usual"]} == {
            f"default/{endpoint}" for endpoint in ENDPOINTS
        }
        assert len({state["engines"][f"default/{endpoint}"]["address"] for endpoint in ENDPOINTS}) == 1


async def test_the_rank_that_is_chosen_serves(world: World) -> None:
    async def one(at: int) -> None:
        answer = await world.chat("usual", messages=conversation(str(uuid.uuid4())), max_tokens=2)
        assert answer.status == 200, answer.body
        told = await ended(world, answer)
        chosen = told["candidates"][0]
        assert name(chosen) == f"dp#{answer.headers['x-engine-rank']}"
        served[chosen["rank"]] += 1

    served: Counter[int] = Counter()
    async with asyncio.TaskGroup() as tasks:
        for at in range(20):
            tasks.create_task(one(at))
    assert min(served[0], served[1]) >= 5, served


@pytest.mark.parametrize("model", ["usual", "exact"])
async def test_requests_with_the_same_beginning_go_to_one_rank(world: World, model: str) -> None:
    about = str(uuid.uuid4())
    first = await world.chat(model, messages=conversation(about), max_tokens=2)
    rank = first.headers["x-engine-rank"]

    async def known() -> bool:
        found = await cached(world, "exact", conversation(about, "and now?"))
        return all(one.get(f"dp#{rank}", 0) >= 300 for one in found)

    await until(known)
    await until(world.idle)
    tally: Counter[str] = Counter()
    for at in range(30):
        answer = await world.chat(model, messages=conversation(about, f"Question {at}"), max_tokens=2)
        tally[answer.headers["x-engine-rank"]] += 1
    assert tally[rank] >= 27, tally


async def test_what_the_rank_has_cached_is_told_exactly(world: World) -> None:
    about = str(uuid.uuid4())
    body = {"model": "sim", "messages": conversation(about), "max_tokens": 1}
    engine = world.engines["dp"]
    headers = {"x-data-parallel-rank": "1"}
    async with engine.session.post(
        f"{engine.url}/v1/chat/completions", json=body, headers=headers
    ) as response:
        assert response.headers["x-engine-rank"] == "1"

    async def known() -> bool:
        found = await cached(world, "exact", conversation(about, "and now?"))
        return all(one.get("dp#1", 0) >= 300 and one.get("dp#0") == 0 for one in found)

    await until(known)
    answer = await world.chat("exact", messages=conversation(about, "and now?"), max_tokens=2)
    told = await ended(world, answer)
    assert answer.headers["x-engine-rank"] == "1"
    assert told["cached_by"] == "exact"
    assert told["outcome"]["cached_tokens"] == told["candidates"][0]["cached_tokens"] >= 300


@pytest.mark.parametrize("wish", ["0", "1", "7", "none"])
async def test_a_client_chooses_no_rank(world: World, wish: str) -> None:
    for at in range(4):
        messages = conversation(str(uuid.uuid4()), f"Question {at}", repeats=2)
        answer = await world.chat("usual", messages=messages, headers={"x-data-parallel-rank": wish})
        assert answer.status == 200, answer.body
        told = await ended(world, answer)
        assert name(told["candidates"][0]) == f"dp#{answer.headers['x-engine-rank']}"
    received = await world.engines["dp"].requests()
    last = [each for each in received if b"Question 3" in each.body][-1]
    assert last.headers["x-data-parallel-rank"] == answer.headers["x-engine-rank"], "one value, ours"
