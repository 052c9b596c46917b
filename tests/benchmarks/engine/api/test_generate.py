import asyncio
import json
from collections.abc import Awaitable

import aiohttp
import pytest

from benchmarks.engine.faults import Hang, Reset, Status
from benchmarks.engine.journal import Outcome

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
STREAM = {**CHAT, "stream": True}


async def first_events(answer: aiohttp.ClientResponse, count: int) -> list[str]:
    return [(await answer.content.readuntil(b"\n\n")).decode() for _ in range(count)]


def texts(raw: str) -> str:
    chunks = [json.loads(event[6:]) for event in raw.split("\n\n") if event.startswith("data: {")]
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


async def test_a_stream_says_the_same_as_a_plain_answer(start, http) -> None:
    engine = await start()
    async with http.post(f"{engine.url}/v1/chat/completions", json=CHAT) as answer:
        plain = (await answer.json())["choices"][0]["message"]["content"]
    async with http.post(f"{engine.url}/v1/chat/completions", json=STREAM) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert texts(await answer.text()) == plain
    assert plain.startswith("pod-a says ")


async def test_a_stream_with_several_choices_holds_all_of_each(start, http) -> None:
    engine = await start()
    async with http.post(
        f"{engine.url}/v1/completions", json={"prompt": ["a", "b"], "n": 2, "stream": True}
    ) as answer:
        raw = await answer.text()
    chunks = [json.loads(event[6:]) for event in raw.split("\n\n") if event.startswith("data: {")]
    sent = [chunk["choices"][0]["index"] for chunk in chunks]
    assert {index: sent.count(index) for index in sent} == dict.fromkeys(range(4), 16)


async def test_headers_come_before_the_first_token(start, http) -> None:
    engine = await start(prefill_tokens_per_s=0.001)
    async with http.post(f"{engine.url}/v1/chat/completions", json=STREAM) as answer:
        assert answer.status == 200
        assert engine.running == 1


async def test_tokens_come_as_they_are_made(start, http) -> None:
    engine = await start(inter_token_s=30.0)
    async with http.post(f"{engine.url}/v1/chat/completions", json=STREAM) as answer:
        role, token = await first_events(answer, 2)
        assert '"role":"assistant"' in role
        assert '"content":"pod-"' in token
        assert engine.running == 1


async def test_a_client_that_leaves_a_stream_frees_its_request(start, http, until) -> None:
    engine = await start(inter_token_s=30.0)
    async with http.post(f"{engine.url}/v1/chat/completions", json=STREAM) as answer:
        await first_events(answer, 2)
    await until(lambda: engine.requests.count(Outcome.ABORTED) == 1)
    assert (engine.running, engine.kv_usage) == (0, 0)


async def test_a_client_that_does_not_wait_for_its_answer_frees_its_request(start, http, until) -> None:
    engine = await start(inter_token_s=30.0)
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(received(http, f"{engine.url}/v1/chat/completions", CHAT, []))
        await until(lambda: engine.running == 1)
        asking.cancel()
    await until(lambda: engine.requests.count(Outcome.ABORTED) == 1)
    assert (engine.running, engine.kv_usage) == (0, 0)


async def test_a_waiting_client_that_goes_away_leaves_the_queue(start, http, until) -> None:
    engine = await start(inter_token_s=30.0, max_running=1)
    async with http.post(f"{engine.url}/v1/chat/completions", json=STREAM) as first:
        await first_events(first, 1)
        async with http.post(f"{engine.url}/v1/chat/completions", json=STREAM):
            assert engine.waiting == 1
        await until(lambda: engine.waiting == 0)
        assert engine.running == 1


async def test_a_full_queue_answers_503_before_any_headers(start, http) -> None:
    engine = await start(inter_token_s=30.0, max_running=1, max_waiting=0)
    async with http.post(f"{engine.url}/v1/chat/completions", json=STREAM) as first:
        await first_events(first, 1)
        for body in (CHAT, STREAM):
            async with http.post(f"{engine.url}/v1/chat/completions", json=body) as second:
                assert second.status == 503
                assert (await second.json())["error"]["type"] == "Service Unavailable"


async def test_a_status_fault_answers_in_the_error_shape(start, http) -> None:
    engine = await start()
    engine.set_faults([Status(429)])
    for path in ("chat/completions", "completions", "embeddings", "rerank", "responses", "messages"):
        async with http.post(f"{engine.url}/v1/{path}", json={}) as answer:
            assert answer.status == 429
            assert list((await answer.json())["error"]) == ["message", "type", "param", "code"]


async def stays_silent(read: Awaitable[bytes]) -> bool:
    """Whether nothing comes for a moment."""
    try:
        await asyncio.wait_for(read, 0.2)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("after_tokens", [1, 3, 8])
async def test_a_hang_holds_a_stream_after_so_many_tokens(start, http, until, after_tokens: int) -> None:
    engine = await start()
    engine.set_faults([Hang(after_tokens, times=1)])
    async with http.post(f"{engine.url}/v1/chat/completions", json=STREAM) as answer:
        role, *tokens = await first_events(answer, 1 + after_tokens)
        assert '"role"' in role
        assert all('"content"' in token for token in tokens)
        assert await stays_silent(answer.content.readany())
    await until(lambda: engine.requests.count(Outcome.ABORTED) == 1)
    assert engine.running == 0


@pytest.mark.parametrize(("body", "after_tokens"), [(CHAT, 0), (CHAT, 3), (CHAT, 8), (STREAM, 0)])
async def test_a_hang_holds_back_the_headers(start, http, until, body, after_tokens: int) -> None:
    engine = await start()
    engine.set_faults([Hang(after_tokens, times=1)])

    async def ask() -> bytes:
        async with http.post(f"{engine.url}/v1/chat/completions", json=body) as answer:
            return await answer.read()

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask())
        await until(lambda: engine.requests.received == 1)
        assert await stays_silent(asyncio.shield(asking))
        asking.cancel()
    await until(lambda: engine.requests.count(Outcome.ABORTED) == 1)
    assert engine.running == 0


async def received(http, url: str, body, pieces: list[bytes]) -> None:
    async with http.post(url, json=body) as answer:
        async for piece in answer.content.iter_any():
            pieces.append(piece)


@pytest.mark.parametrize("body", [CHAT, STREAM])
@pytest.mark.parametrize("after_tokens", [0, 3, 8])
async def test_a_reset_cuts_the_connection(start, http, until, body, after_tokens: int) -> None:
    engine = await start()
    engine.set_faults([Reset(after_tokens, times=1)])
    got: list[bytes] = []
    with pytest.raises(aiohttp.ClientError):
        await received(http, f"{engine.url}/v1/chat/completions", body, got)
    expected = after_tokens if body is STREAM else 0
    assert b"".join(got).count(b'"finish_reason"') == (expected + 1 if expected else 0)
    await until(lambda: engine.running == 0)
    assert [entry.outcome for entry in engine.requests] == [Outcome.RESET]
    async with http.post(f"{engine.url}/v1/chat/completions", json=CHAT) as answer:
        assert answer.status == 200


async def test_a_reset_is_a_tcp_reset(start) -> None:
    engine = await start()
    engine.set_faults([Reset(2)])
    reader, writer = await asyncio.open_connection(engine.host, engine.port)
    raw = json.dumps(STREAM).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(raw) + raw
    )
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_an_answer_shorter_than_the_fault_is_not_hit(start, http) -> None:
    engine = await start()
    engine.set_faults([Reset(9)])
    for body in (CHAT, STREAM):
        async with http.post(f"{engine.url}/v1/chat/completions", json=body) as answer:
            assert (await answer.read()).strip()
