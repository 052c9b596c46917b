"""Real connections: to workers, to other servers, to servers that hang, and to nobody."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from extproc.ask import workers
from extproc.ask.workers import Question, Said, Silent, ask, ask_any
from extproc.supervise import Address

GENEROUS_S = 20.0
WHY = Question("/explain/x", GENEROUS_S)


@asynccontextmanager
async def serving(handler, port=0) -> AsyncIterator[Address]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield Address("127.0.0.1", runner.addresses[0][1])
    finally:
        await runner.cleanup()


def answering(document, status=200):
    async def handler(request):
        return web.json_response(document, status=status)

    return handler


async def hang(request):
    await asyncio.sleep(GENEROUS_S)
    raise AssertionError("nobody waits so long")


async def trickle(request):
    """Sends a byte now and then, and never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


@pytest.fixture
def nobody() -> Address:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", held.getsockname()[1])


async def test_all_are_asked_and_told_in_order(nobody):
    async with serving(answering({"n": 1})) as first, serving(answering({"error": "e"}, 404)) as second:
        answers = await ask((second, nobody, first), WHY)

    assert answers == [
        Said(second, 404, {"error": "e"}),
        Silent(nobody, "connection refused", absent=True),
        Said(first, 200, {"n": 1}),
    ]


async def test_a_question_arrives_as_it_is():
    async def echo(request):
        return web.json_response([request.method, request.raw_path, (await request.read()).decode()])

    async def wrapped(request):
        return web.json_response({"seen": json.loads((await echo(request)).body)})

    async with serving(wrapped) as worker:
        (got,) = await ask((worker,), Question("/explain/a%2Fb", GENEROUS_S))
        (posted,) = await ask((worker,), Question("/route", GENEROUS_S, b"{}"))

    assert got.body == {"seen": ["GET", "/explain/a%2Fb", ""]}
    assert posted.body == {"seen": ["POST", "/route", "{}"]}


@pytest.mark.parametrize("handler", [hang, trickle])
async def test_who_does_not_answer_in_time_is_not_waited_for(handler):
    async with serving(handler) as worker:
        (answer,) = await ask((worker,), Question("/", 0.2))

    assert answer == Silent(worker, "no answer within 0.2 s")


async def garbage(request):
    return web.Response(body=b"\xff\x00<html>")


async def redirect(request):
    raise web.HTTPFound("/elsewhere")


async def endless(request):
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 2**20)


@pytest.mark.parametrize("handler", [garbage, redirect, endless, answering([1]), answering("x")])
async def test_what_is_no_worker_is_told_as_such(handler):
    async with serving(handler) as other:
        (answer,) = await ask((other,), WHY)

    assert answer == Silent(other, "what answers there is no kvoy worker")


async def test_a_server_that_does_not_speak_http_is_no_worker():
    async def talk(reader, writer):
        writer.write(b"-ERR what?\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        address = Address(*server.sockets[0].getsockname())
        (answer,) = await ask((address,), WHY)

    assert answer == Silent(address, "what answers there is no kvoy worker")


async def test_a_host_that_has_no_address_is_absent():
    (answer,) = await ask((Address("nowhere.invalid", 1),), WHY)

    assert answer == Silent(Address("nowhere.invalid", 1), "the name has no address", absent=True)


class TestSearch:
    """Without addresses: from the first place on."""

    @pytest.fixture
    def first(self, monkeypatch) -> int:
        """A port after which several are free, taken as the first place of a worker."""
        for port in range(21190, 29000, 97):
            with socket.socket() as probe:
                if all(probe.connect_ex(("127.0.0.1", port + at)) for at in range(12)):
                    break
        monkeypatch.setattr(workers, "FIRST", Address("127.0.0.1", port))
        return port

    async def test_the_search_ends_where_nobody_listens(self, first):
        async with serving(answering({"n": 0}), first), serving(answering({"n": 1}), first + 1):
            answers = await ask((), WHY)

        assert [answer.body["n"] for answer in answers if isinstance(answer, Said)] == [0, 1]
        assert len(answers) == 8

    async def test_it_goes_on_as_long_as_all_answer(self, first, monkeypatch):
        monkeypatch.setattr(workers, "_STRIDE", 2)
        async with serving(answering({"n": 0}), first), serving(answering({"n": 1}), first + 1):
            async with serving(answering({"n": 2}), first + 2):
                answers = await ask((), WHY)

        assert [answer.body["n"] for answer in answers if isinstance(answer, Said)] == [0, 1, 2]

    async def test_a_worker_that_is_away_does_not_hide_the_next(self, first):
        async with serving(answering({"n": 1}), first + 1):
            answers = await ask((), WHY)
            one_after_the_other = await ask_any((), WHY)

        assert Said(Address("127.0.0.1", first + 1), 200, {"n": 1}) in answers
        assert one_after_the_other[-1] == Said(Address("127.0.0.1", first + 1), 200, {"n": 1})
        assert len(one_after_the_other) == 2

    async def test_it_ends_with_the_most_workers_that_there_can_be(self, first, monkeypatch):
        monkeypatch.setattr(workers, "_STRIDE", 1)
        monkeypatch.setattr(workers, "_MOST", 1)
        async with serving(answering({"n": 0}), first), serving(answering({"n": 1}), first + 1):
            answers = await ask((), WHY)

        assert len(answers) == 1


async def test_one_answer_of_any_is_enough(nobody):
    asked = []

    async def remember(request):
        asked.append(request)
        return web.json_response({})

    async with serving(remember) as first, serving(remember) as second:
        answers = await ask_any((nobody, first, second), WHY)

    assert [answer.address for answer in answers] == [nobody, first]
    assert len(asked) == 1
