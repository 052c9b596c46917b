"""Streamed answers: they arrive as they are made, unchanged, and nothing that kvoy does cuts them."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.envoy.world import World, a_model_route, a_model_server, a_pod_manifest, to, until

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


EVENTS = [
    b'data: {"id":"1","choices":[{"delta":{"content":"\xe6\xa8\xa1"}}]}\n\n',
    b": a comment\n\n",
    b'event: odd\r\ndata: {"a" : 1.10,\r\n',
    b'data: "b":null}\r\n\r\n',
    b"data: true\n\n",
    b"data: \xff\xfe not UTF-8\n\n",
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
]


@asynccontextmanager
async def a_slow_teller(proceed: asyncio.Semaphore) -> AsyncIterator[int]:
    """An engine that sends EVENTS one by one, each when it is told to; yields its port."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST "):
            # The collector asks for metrics: a turn to proceed is not for it.
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for event in EVENTS:
            await proceed.acquire()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(tell, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_chunks_arrive_one_by_one_and_unchanged(world: World) -> None:
    proceed = asyncio.Semaphore(0)
    async with a_slow_teller(proceed) as port:
        objects = (
            a_model_route("teller", "teller", to("teller")),
            a_model_server("teller"),
            a_pod_manifest("teller", "teller", port),
        )
        async with (
            world.extra(*objects),
            world.session.post(world.stack.url + CHAT, json=a_stream(9, "teller")) as response,
        ):
            assert response.headers["content-type"] == "text/event-stream"
            for event in EVENTS:
                # The next event is not even written before this one has arrived.
                proceed.release()
                assert await response.content.readexactly(len(event)) == event
            assert await response.content.read() == b""


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
