"""Prefill engines on loopback that do as told, and books that notice an entry too many."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from aiohttp import web

from extproc.exchange import Routing
from extproc.handoff.driver import Driver
from extproc.handoff.engines import Engines
from extproc.handoff.handoff import HandOff
from extproc.request import APIS
from extproc.state.snapshot import Endpoint, Source
from extproc.testing import a_placement

PARAMS = '{"do_remote_prefill": true,  "remote_block_ids":[[1,2]], "remote_engine_id":"eng-1"}'
"""With spaces of its own: it must be passed on as it is."""
ANSWER = (
    f'{{"id":"x","kv_transfer_params":{PARAMS},"usage":{{"prompt_tokens":9,"total_tokens":10}}}}'.encode()
)
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'
PARTNERS = ("10.0.0.8:8000", "10.0.0.9:8000")
QUERY = {"0": {"engine_id": "eng-zero", "worker_addr": {}}, "1": {"engine_id": "eng-one", "worker_addr": {}}}


@dataclass(slots=True)
class Asked:
    """A request as a prefill engine got it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    port: int
    """The client's: tells connections apart."""


@dataclass
class PrefillEngine:
    """Answers as told and remembers what it was asked."""

    address: str = ""
    status: int = 200
    answer: bytes = ANSWER
    headers: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    """Nothing is answered before it is set."""
    resets: bool = False
    """The connection breaks in the middle of the answer."""
    ranks: Any = field(default_factory=lambda: QUERY)
    """Answer of the bootstrap server, which listens on the same port."""
    asked: list[Asked] = field(default_factory=list)
    queries: int = 0
    open: int = 0
    """Requests it is working on."""
    aborted: int = 0
    """Requests whose client left before the answer."""

    @property
    def source(self) -> Source:
        host, _, port = self.address.rpartition(":")
        return Source(host, int(port), "eng-1")

    def endpoint(self, name: str, rank: int | None = None) -> Endpoint:
        return Endpoint.of(f"pod/default/{name}", self.address, rank, "g", self.source)

    async def compute(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        port = request.transport.get_extra_info("peername")[1]
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.path, headers, json.loads(await request.read()), port))
        self.open += 1
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.resets:
                return await self._reset(request)
            return web.Response(status=self.status, body=self.answer, headers=self.headers)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.open -= 1

    async def query(self, _: web.Request) -> web.Response:
        self.queries += 1
        return web.json_response(self.ranks)

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "1000"})
        await response.prepare(request)
        await response.write(b'{"id":')
        assert request.transport is not None
        request.transport.abort()
        return response


class Books:
    """Reservations of prefill endpoints: each is given back once, in one way."""

    def __init__(self) -> None:
        self.live = {1: "first"}
        self.ways: list[tuple[Any, ...]] = []

    def moved(self, reservation: int, endpoint: Endpoint) -> int:
        self._gives_back(reservation)
        self.live[reservation + 1] = endpoint.pod
        self.ways.append(("moved", endpoint.pod))
        return reservation + 1

    def computed(self, reservation: int, reply: Any, seconds: float) -> None:
        self._gives_back(reservation)
        self.ways.append(("computed", reply.prompt_tokens, seconds))

    def dropped(self, reservation: int, failed: bool) -> None:
        self._gives_back(reservation)
        self.ways.append(("dropped", failed))

    def left_to_sidecar(self, answer: int, prompt: int) -> None:
        self._gives_back(prompt)
        self.ways.append(("sidecar", answer))

    def _gives_back(self, reservation: int) -> None:
        assert reservation in self.live, f"reservation {reservation} was given back before"
        del self.live[reservation]


class Diary:
    """What a watcher is told."""

    def __init__(self) -> None:
        self.tries: list[tuple[str, str]] = []
        self.seconds: list[float] = []
        self.endings: list[str] = []

    def tried(self, handoff: HandOff, endpoint: Endpoint, result: str, seconds: float) -> None:
        self.tries.append((endpoint.pod.rpartition("/")[2], result))
        self.seconds.append(seconds)

    def ended(self, handoff: HandOff, ending: str) -> None:
        self.endings.append(ending)


Start = Callable[..., Awaitable[PrefillEngine]]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def diary() -> Diary:
    return Diary()


@asynccontextmanager
async def serving() -> AsyncIterator[Start]:
    runners: list[web.AppRunner] = []

    async def started(*, ssl: Any = None, **how: Any) -> PrefillEngine:
        engine = PrefillEngine(**how)
        app = web.Application(client_max_size=2**30)
        app.router.add_get("/query", engine.query)
        app.router.add_post("/{path:.*}", engine.compute)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl).start()
        engine.address = f"127.0.0.1:{runner.addresses[0][1]}"
        return engine

    yield started
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def fresh_books() -> Callable[[], tuple[Books, Diary, Clock]]:
    """New ones for each of many examples."""
    return lambda: (Books(), Diary(), Clock())


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with serving() as started:
        yield started


@dataclass
class World:
    """All of it for one of many examples."""

    start: Start
    driver: Driver
    books: Books
    diary: Diary


@pytest.fixture
def world() -> Callable[[float], AbstractAsyncContextManager[World]]:
    @asynccontextmanager
    async def opened(head_start_s: float) -> AsyncIterator[World]:
        books, diary, clock = Books(), Diary(), Clock()
        async with serving() as started, Engines(clock) as engines:
            async with Driver(engines, books, diary, Random(7), clock, head_start_s) as driver:
                yield World(started, driver, books, diary)

    return opened


@pytest.fixture
def nobody(unused_tcp_port_factory: Callable[[], int]) -> Callable[[], PrefillEngine]:
    """An engine at whose address nobody listens."""
    return lambda: PrefillEngine(address=f"127.0.0.1:{unused_tcp_port_factory()}")


@pytest.fixture
async def engines(clock: Clock) -> AsyncIterator[Engines]:
    async with Engines(clock) as opened:
        yield opened


@pytest.fixture
async def driver(engines: Engines, books: Books, diary: Diary, clock: Clock) -> AsyncIterator[Driver]:
    """With a head start that lasts until the prefill engine has answered."""
    async with Driver(engines, books, diary, Random(7), clock, head_start_s=60) as opened:
        yield opened


@pytest.fixture
async def hasty(engines: Engines, books: Books, diary: Diary, clock: Clock) -> AsyncIterator[Driver]:
    """Without a head start: whatever a prefill engine answers, it is late."""
    async with Driver(engines, books, diary, Random(7), clock, head_start_s=0) as opened:
        yield opened


@pytest.fixture
def handoff() -> Callable[..., HandOff]:
    def built(
        connector: str, *prefills: Endpoint, api: str = "/v1/chat/completions", **other: Any
    ) -> HandOff:
        given = {
            "body": BODY,
            "headers": {"authorization": "Bearer k", "traceparent": "t"},
            "request_id": "r-1",
            "reservation": 1,
            "routing": Routing("model/default/s", a_placement(*PARTNERS), 77, None, (("x-own", "1"),)),
            "partners": PARTNERS,
            "tls": None,
            "timeout_s": 30.0,
            "decode_alone": True,
            "tensor_parallel": 2,
        }
        return HandOff(connector, APIS[api], api, prefills=prefills, **(given | other))  # type: ignore[arg-type]

    return built


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    async def waited(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, "it never came to that"
            await asyncio.sleep(0.002)

    return waited
