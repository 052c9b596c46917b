import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import aiohttp
import pytest
from aiohttp import web

from benchmarks.engine import EngineSettings, running
from benchmarks.engine.tokens import encode
from extproc.tokens.question import NotHere, Untellable
from extproc.tokens.remote import FAILURES, PAUSE_S, Remote


@dataclass
class Stub:
    """An engine that answers as told and remembers what it was asked."""

    url: str
    status: int = 200
    answer: bytes = b'{"tokens": [1, 2]}'
    hangs: bool = False
    asked: list[tuple[str, dict[str, object]]] = field(default_factory=list)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def stub() -> AsyncIterator[Callable[[], Stub]]:
    runners = []

    async def start(**how: object) -> Stub:
        async def handle(request: web.Request) -> web.Response:
            found.asked.append((request.path, await request.json()))
            if found.hangs:
                await asyncio.sleep(60)
            return web.Response(status=found.status, body=found.answer)

        app = web.Application()
        app.router.add_post("/{path:.*}", handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found = Stub(f"http://127.0.0.1:{runner.addresses[0][1]}", **how)
        return found

    yield start
    for runner in runners:
        await runner.cleanup()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_the_tokens_are_the_engines(http, chat, completion, unpacked):
    async with running(EngineSettings(name="pod-a", model="tiny")) as engine:
        remote = Remote(http, Clock())
        told = unpacked(await remote.ids(completion("abcdefgh", engines=(engine.url,))))
        said = unpacked(await remote.ids(chat("hi", engines=(engine.url,))))

    assert told == encode("abcdefgh").tolist()
    assert b"hi" in b"".join(token.to_bytes(4, "little") for token in said)


async def test_tokenize_is_asked_with_what_it_knows(http, stub, chat, completion, unpacked):
    engine = await stub()
    remote = Remote(http, Clock())
    options = {"tools": [{"a": 1}], "chat_template_kwargs": {"b": 2}, "add_generation_prompt": False}

    assert unpacked(await remote.ids(chat("hi", engines=(engine.url,), **options))) == [1, 2]
    await remote.ids(completion(["hi"], engines=(engine.url,), add_special_tokens=False, tools=[]))

    messages = [{"role": "user", "content": "hi"}]
    assert engine.asked == [
        ("/tokenize", {"model": "tiny", "messages": messages} | options),
        ("/tokenize", {"model": "tiny", "prompt": "hi", "add_special_tokens": False}),
    ]


async def test_render_is_asked_with_what_tokenize_does_not_know(http, stub, chat, unpacked):
    engine = await stub(answer=b'{"token_ids": [7], "features": null}')

    told = await Remote(http, Clock()).ids(chat("hi", engines=(engine.url,), reasoning_effort="low"))

    assert unpacked(told) == [7]
    ((path, body),) = engine.asked
    assert (path, body["reasoning_effort"]) == ("/v1/chat/completions/render", "low")


BAD = [
    {"status": 500},
    {"status": 404},
    {"answer": b"no"},
    {"answer": b'{"tokens": null}'},
    {"answer": b'{"tokens": [-1]}'},
    {"answer": b'{"tokens": ["a"]}'},
    {"answer": b"\xff"},
    {"hangs": True},
]


@pytest.mark.parametrize("how", BAD, ids=str)
async def test_the_next_engine_is_asked_when_one_fails(http, stub, chat, unpacked, how, monkeypatch):
    monkeypatch.setattr("extproc.tokens.remote.WITHIN_S", 0.05 if "hangs" in how else 10)
    bad, good = await stub(**how), await stub()

    assert unpacked(await Remote(http, Clock()).ids(chat("hi", engines=(bad.url, good.url)))) == [1, 2]
    assert (len(bad.asked), len(good.asked)) == (1, 1)


async def test_no_engine_tells(http, stub, chat):
    bad = await stub(status=500)
    with pytest.raises(NotHere, match="no engine told its tokens"):
        await Remote(http, Clock()).ids(chat("hi", engines=(bad.url, "http://127.0.0.1:1")))
    with pytest.raises(NotHere, match="no engine told its tokens"):
        await Remote(http, Clock()).ids(chat("hi", engines=("no url at all",)))


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refusal_ends_it_and_is_not_the_engines_fault(http, stub, chat, status):
    first, second = await stub(status=status), await stub()
    remote = Remote(http, Clock())

    for _ in range(FAILURES + 1):
        with pytest.raises(Untellable, match=f"the engine refuses the prompt .{status}."):
            await remote.ids(chat("hi", engines=(first.url, second.url)))

    assert (len(first.asked), len(second.asked)) == (FAILURES + 1, 0)


async def test_an_engine_that_keeps_failing_is_left_alone_for_a_while(http, stub, chat, caplog):
    caplog.set_level(logging.INFO, "kvoy.tokens")
    bad, good = await stub(status=500), await stub()
    clock = Clock()
    remote = Remote(http, clock)
    question = chat("secret", engines=(bad.url, good.url))

    for _ in range(FAILURES + 5):
        await remote.ids(question)
    assert len(bad.asked) == FAILURES

    clock.now += PAUSE_S
    await remote.ids(question)
    await remote.ids(question)
    assert len(bad.asked) == FAILURES + 1

    clock.now += PAUSE_S
    bad.status = 200
    await remote.ids(question)
    await remote.ids(question)
    assert len(bad.asked) == FAILURES + 3

    assert [record.getMessage() for record in caplog.records] == [
        f"{bad.url} does not tell token ids (status 500); asking others",
        f"{bad.url} tells token ids again",
    ]


async def test_a_success_forgives(http, stub, chat):
    engine = await stub(status=500)
    remote = Remote(http, Clock())
    question = chat("hi", engines=(engine.url,))
    for status in (500, 500, 200, 500, 500, 200):
        engine.status = status
        if status == 500:
            with pytest.raises(NotHere):
                await remote.ids(question)
        else:
            await remote.ids(question)

    assert len(engine.asked) == 6


async def test_engines_that_are_gone_are_forgotten(http, chat):
    remote = Remote(http, Clock())
    question = chat("hi")

    for at in range(1100):
        with pytest.raises(NotHere):
            await remote.ids(replace(question, engines=(f"nothing:{at}",)))

    assert len(remote._troubles) == 1000
