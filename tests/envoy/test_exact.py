"""Exact matching, as a client sees it: what the engines' KV events tell decides, whoever sent the prompts."""

import asyncio
import json
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.envoy.steering import cached, conversation, ended, name, observed, preview, scheduler
from tests.envoy.world import (
    Answer,
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

SIM = ("--model", "sim", "--inter-token-s", "0.001", "--reply-tokens", "4")
EVENTS = ("--kv-events", "0", "--kv-events-replay", "0")
TINY = ("--num-blocks", "64", "--max-model-len", "1000")
"""An engine whose cache holds 1,024 tokens."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pools() -> AsyncIterator[World]:
    """``told``: three engines with KV events, one of which has a small cache; ``untold``: two without."""
    async with AsyncExitStack() as resources:
        started = await engines(
            resources,
            ("e1", *SIM, *EVENTS),
            ("e2", *SIM, *EVENTS),
            ("small", *SIM, *EVENTS, *TINY),
            ("b1", *SIM),
            ("b2", *SIM),
        )
        pods = {"e1": "told", "e2": "told", "small": "told", "b1": "untold", "b2": "untold"}
        profile = scheduler("kvcache-aware")
        world = await resources.enter_async_context(
            a_world(
                servers=[a_model_server(app, annotations=profile, model="sim") for app in ("told", "untold")],
                pods=[a_pod_manifest(each.name, pods[each.name], each.port) for each in started],
                routes=[a_model_route(app, app, to(app)) for app in ("told", "untold")],
            )
        )
        world.engines = {engine.name: engine for engine in started}
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def world(pools: World) -> AsyncIterator[World]:
    """The stack with every engine observed and healthy, idle again afterwards."""
    await observed(pools, ("e1", "e2", "small"), kv_events=True)
    await observed(pools, ("b1", "b2"))
    yield pools
    for engine in pools.engines.values():
        await engine.faults()
    await until(pools.idle)


async def directly(engine: Engine, messages: list[dict[str, str]]) -> None:
    """A request that kvoy does not see."""
    body = {"model": "sim", "messages": messages, "max_tokens": 1}
    async with engine.session.post(f"{engine.url}/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()


async def knows(world: World, messages: list[dict[str, str]], endpoint: str, *, at_least: int) -> None:
    """Wait until every worker knows that an endpoint has so many tokens of this prompt."""

    async def known() -> bool:
        return all(one.get(endpoint, 0) >= at_least for one in await cached(world, "told", messages))

    await until(known)


async def knows_nothing(world: World, messages: list[dict[str, str]], endpoint: str) -> None:
    """Wait until every worker knows that an endpoint has nothing of this prompt."""

    async def gone() -> bool:
        return all(one.get(endpoint) == 0 for one in await cached(world, "told", messages))

    await until(gone)


def subject() -> str:
    """The beginning of a conversation that nobody has had before."""
    return str(uuid.uuid4())


async def ask(world: World, messages: list[dict[str, str]], model: str = "told") -> Answer:
    answer = await world.chat(model, messages=messages, max_tokens=2)
    assert answer.status == 200, answer.body
    return answer


async def test_requests_with_the_same_beginning_go_to_one_pod(world: World) -> None:
    about = subject()
    first = await ask(world, conversation(about))
    await knows(world, conversation(about, "and now?"), first.served_by, at_least=300)
    tally: Counter[str] = Counter()
    for at in range(40):
        tally[(await ask(world, conversation(about, f"Question {at}"))).served_by] += 1

    assert max(tally.values()) >= 36, tally


@pytest.mark.parametrize("target", ["e1", "e2"])
async def test_a_prompt_that_kvoy_never_saw_attracts_those_that_begin_like_it(
    world: World, target: str
) -> None:
    about = subject()
    await directly(world.engines[target], conversation(about))
    await knows(world, conversation(about, "and now?"), target, at_least=300)

    answers = [await ask(world, conversation(about, f"Question {at}")) for at in range(6)]
    assert {answer.served_by for answer in answers} == {target}


async def test_the_explanation_says_exactly_and_the_engine_confirms_it(world: World) -> None:
    about = subject()
    await ask(world, conversation(about))
    answer = await ask(world, conversation(about, "and now?"))
    await knows(world, conversation(about, "and then?"), answer.served_by, at_least=300)

    told = await ended(world, await ask(world, conversation(about, "and then?")))
    assert told["cached_by"] == "exact"
    assert told["notes"] == []
    end = told["outcome"]
    assert end["cached_tokens"] == end["predicted_cached_tokens"] > 300
    assert told["prompt"]["tokens"] == end["prompt_tokens"]


async def test_an_evicted_prompt_attracts_nobody(world: World) -> None:
    about = subject()
    small = world.engines["small"]
    await directly(small, conversation(about))
    await knows(world, conversation(about), "small", at_least=300)

    for _ in range(3):
        await directly(small, conversation(subject()))
    await knows_nothing(world, conversation(about), "small")
    await directly(world.engines["e2"], conversation(about))
    await knows(world, conversation(about), "e2", at_least=300)

    assert {(await ask(world, conversation(about, f"{at}"))).served_by for at in range(4)} == {"e2"}


async def test_a_reset_cache_attracts_nobody(world: World) -> None:
    about = subject()
    e1 = world.engines["e1"]
    await directly(e1, conversation(about))
    await knows(world, conversation(about), "e1", at_least=300)

    async with e1.session.post(f"{e1.url}/reset_prefix_cache") as response:
        assert await response.json() == {"success": True}
    # The engine tells of the reset with its next step.
    await directly(e1, conversation(subject()))
    await knows_nothing(world, conversation(about), "e1")


async def test_lost_events_are_fetched(world: World) -> None:
    about = subject()
    e1 = world.engines["e1"]
    await e1.faults({"kind": "lose_events", "batches": 2})
    await directly(e1, conversation(about))
    await directly(e1, conversation(subject()))
    await directly(e1, conversation(subject()))

    await knows(world, conversation(about), "e1", at_least=300)


async def test_without_kv_events_it_matches_approximately_and_says_so(world: World) -> None:
    about = subject()
    answers = [await ask(world, conversation(about, f"Question {at}"), "untold") for at in range(10)]

    tally = Counter(answer.served_by for answer in answers)
    assert max(tally.values()) >= 9, tally
    told = await ended(world, answers[-1])
    assert told["cached_by"] == "approximate"
    assert any("KV events" in note for note in told["notes"]), told["notes"]


async def test_an_image_is_matched_approximately(world: World) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]}]
    told = await preview(world, world.stack.admins[0], {"model": "told", "messages": messages})

    assert told["cached_by"] == "approximate"
    (note,) = told["notes"]
    assert "images or other media" in note
    for each in ("e1", "e2", "small"):
        bodies = [json.loads(one.body) for one in await world.engines[each].requests() if one.body]
        assert not any(body.get("messages") == messages for body in bodies), "no engine is shown the image"


async def test_without_a_collector_it_matches_approximately(world: World) -> None:
    about = subject()
    body = {"model": "told", "messages": conversation(about, "and now?")}
    (collector,) = world.stack.pids("extproc.collect")
    os.kill(collector, signal.SIGSTOP)
    try:
        served = (await ask(world, conversation(about))).served_by

        async def approximate() -> bool:
            told = [await preview(world, admin, body) for admin in world.stack.admins]
            return all(
                one["cached_by"] == "approximate" and name(one["candidates"][0]) == served for one in told
            )

        await until(approximate)
    finally:
        os.kill(collector, signal.SIGCONT)


async def test_without_token_ids_it_matches_approximately_and_says_why(world: World) -> None:
    for each in ("e1", "e2", "small"):
        await world.engines[each].faults({"kind": "no_tokens", "status": 500})
    about = subject()
    answers = [await ask(world, conversation(about, f"Question {at}")) for at in range(10)]

    tally = Counter(answer.served_by for answer in answers)
    assert max(tally.values()) >= 9, tally
    told = await ended(world, answers[-1])
    assert told["cached_by"] == "approximate"
    assert told["candidates"][0]["cached_tokens"] > 200
    (note,) = told["notes"]
    assert "no directory of tokenizers is given, and no engine told its tokens" in note


async def test_a_burst_of_clients_gets_answers_whatever_happens_to_the_token_ids(world: World) -> None:
    about = subject()
    statuses: Counter[int] = Counter()

    async def one(at: int) -> None:
        answer = await world.chat("told", messages=conversation(about, f"Question {at}"), max_tokens=2)
        statuses[answer.status] += 1

    async with asyncio.TaskGroup() as tasks:
        for at in range(40):
            tasks.create_task(one(at))
            if at == 20:
                tasks.create_task(world.engines["e1"].faults({"kind": "no_tokens", "status": 503}))

    assert statuses == {200: 40}
