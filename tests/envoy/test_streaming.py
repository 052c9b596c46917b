"""Streamed answers: they arrive as they are made, unchanged, and nothing that kvoy does cuts them."""

import asyncio
import json
import time
from collections import Counter

import pytest

from tests.envoy.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"


def a_stream(tokens: int, model: str = "deepseek-r1") -> dict[str, object]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "tell me a story"}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_chunks_arrive_one_by_one_and_unchanged(world: World) -> None:
    engine = world.engines["small-1"]
    through: list[bytes] = []
    while True:
        async with world.session.post(world.stack.url + CHAT, json=a_stream(40)) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            served_by = response.headers["x-engine-name"]
            through = [chunk async for chunk, _ in response.content.iter_chunks()]
        if served_by == engine.name:
            break
    async with world.session.post(engine.url + CHAT, json=a_stream(40, "vendor/small")) as response:
        direct = await response.read()

    assert len(through) > 20, "the answer was not collected before it was passed on"
    assert shape(b"".join(through)) == shape(direct)


def shape(stream: bytes) -> list[object]:
    """The events without what differs between two requests: ids, times, cache hits."""
    events: list[object] = []
    for line in stream.split(b"\n\n"):
        text = line.removeprefix(b"data: ")
        if not text.startswith(b"{"):
            events.append(text)
            continue
        event = json.loads(text)
        for volatile in ("id", "created", "usage", "metrics"):
            event.pop(volatile, None)
        events.append(event)
    return events


async def test_usage_is_asked_for_on_behalf_of_the_client(world: World) -> None:
    before = await world.metric("kvoy_tokens_total", server="default/small", kind="completion")
    body = a_stream(7)
    del body["stream_options"]
    async with world.session.post(world.stack.url + CHAT, json=body) as response:
        await response.read()

    async def counted() -> bool:
        after = await world.metric("kvoy_tokens_total", server="default/small", kind="completion")
        return after - before == 7

    await until(counted)


async def test_a_thousand_slow_streams_run_side_by_side(world: World) -> None:
    ends: Counter[str] = Counter()

    async def stream() -> None:
        async with world.session.post(world.stack.url + CHAT, json=a_stream(30)) as response:
            body = await response.read()
            ends["whole" if response.status == 200 and body.endswith(b"data: [DONE]\n\n") else "broken"] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(1000):
            tasks.create_task(stream())

    assert ends == {"whole": 1000}


async def test_restarting_every_worker_breaks_no_open_stream(world: World) -> None:
    async def stream() -> bytes:
        async with world.session.post(world.stack.url + CHAT, json=a_stream(1500)) as response:
            assert response.status == 200
            opened.release()
            return await response.read()

    opened = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as tasks:
        streams = [tasks.create_task(stream()) for _ in range(20)]
        for _ in streams:
            await opened.acquire()
        await world.restart_workers()
        assert not any(task.done() for task in streams), (
            "the workers were restarted while the streams were open"
        )

    assert all(task.result().endswith(b"data: [DONE]\n\n") for task in streams)
    assert (await world.chat("deepseek-r1")).status == 200


async def test_time_to_first_byte_is_measured(world: World) -> None:
    before = await world.metric("kvoy_time_to_first_byte_seconds_count", server="default/big")
    started = time.monotonic()
    await world.chat("deepseek-r1", headers={"user-type": "premium"})
    took = time.monotonic() - started

    async def counted() -> bool:
        return await world.metric("kvoy_time_to_first_byte_seconds_count", server="default/big") == before + 1

    await until(counted)
    total = await world.metric("kvoy_time_to_first_byte_seconds_sum", server="default/big")
    count = await world.metric("kvoy_time_to_first_byte_seconds_count", server="default/big")
    assert 0 < total <= (count - 1) * 60 + took
