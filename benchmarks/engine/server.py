"""Listens; `running` is the library entry."""

import asyncio
import hashlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf, isinf

from aiohttp import web

from benchmarks.engine.api import app
from benchmarks.engine.api.catalogue import VERSION
from benchmarks.engine.api.context import Context
from benchmarks.engine.faults import Fault, Faults
from benchmarks.engine.journal import Journal
from benchmarks.engine.models import Models
from benchmarks.engine.publisher import Publisher, Sockets, opened
from benchmarks.engine.ranks import Ranks
from benchmarks.engine.runtime import Clock
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.desk import Desk
from benchmarks.engine.transfer.desk import opened as desk_opened

_GRACE_S = 0.1
"""How long open requests may take to end when the engine stops; after that they are cut."""

_BACKLOG = 4096


class RunningEngine:
    """An engine that listens."""

    def __init__(self, context: Context, listener: "_Listener") -> None:
        self._context = context
        self._listener = listener

    @property
    def name(self) -> str:
        return self._context.settings.name

    @property
    def host(self) -> str:
        return self._context.settings.host

    @property
    def port(self) -> int:
        """The port in use, also if the settings asked for any."""
        return self._listener.port

    @property
    def url(self) -> str:
        """``http://host:port``, or https with a certificate."""
        scheme = "http" if self._context.settings.tls_cert is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @property
    def requests(self) -> Journal:
        """What was received; iterating gives the kept requests, oldest first."""
        return self._context.journal

    @property
    def running(self) -> int:
        """Requests being computed."""
        return self._context.ranks.running

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._context.ranks.waiting

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks in use, 0 to 1."""
        return self._context.ranks.kv_usage

    @property
    def kv_port(self) -> int:
        """Where other engines reach its KV cache; 0 without a connector that was told no port."""
        return self._context.desk.server.port

    @property
    def prefills(self) -> int:
        """Requests open now whose prompt is for another engine."""
        return self._context.desk.dock.prefills

    @property
    def transfers_served(self) -> int:
        """Prompts that other engines have fetched."""
        return self._context.desk.dock.served

    @property
    def transfers_open(self) -> int:
        """Prompts that other engines are fetching now."""
        return self._context.desk.dock.sending

    @property
    def transfers_awaited(self) -> int:
        """Decode engines that wait now for prompts that this one has not computed yet."""
        return self._context.desk.dock.awaited

    @property
    def leases(self) -> int:
        """Prompts whose blocks are held for other engines."""
        return self._context.desk.dock.leases

    @property
    def alive(self) -> bool:
        """False from the moment that a body or a fault kills it."""
        return not self._listener.died.is_set()

    async def death(self) -> None:
        """Wait until it is dead, and nothing listens any more."""
        await self._listener.buried.wait()

    def die(self) -> None:
        """Reset every connection and never listen again."""
        self._listener.die()

    @property
    def kv_event_sources(self) -> dict[str, dict[str, object]]:
        """What ``/kv_event_sources`` answers: where each rank publishes."""
        return self._context.kv_event_sources

    def set_faults(self, faults: Sequence[Fault]) -> None:
        """Put these faults in force instead of those before; an empty list ends all but a refusal."""
        refuse_for = self._context.faults.replace(faults, self._context.clock())
        if refuse_for is not None:
            self._listener.refuse(refuse_for)


class _Listener:
    """The listening socket, which a fault can take away for a while."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._tls = _tls_context(settings)
        self._refusals: asyncio.Queue[float] = asyncio.Queue()
        self.port = settings.port
        self.died = asyncio.Event()
        self.buried = asyncio.Event()

    def refuse(self, seconds: float) -> None:
        """Soon reset every connection and refuse new ones for so long."""
        self._refusals.put_nowait(seconds)

    def die(self) -> None:
        """Soon reset every connection and never listen again."""
        self.died.set()
        self._refusals.put_nowait(inf)

    async def open(self, runner: web.AppRunner) -> web.TCPSite:
        """Listen; OSError if the address is taken."""
        site = web.TCPSite(
            runner,
            self._settings.host,
            self.port,
            ssl_context=self._tls,
            backlog=_BACKLOG,
            reuse_address=True,
        )
        await site.start()
        self.port = site.port
        return site

    async def keep(self, runner: web.AppRunner, site: web.TCPSite, desk: Desk) -> None:
        """Carry out refusals, until the engine dies."""
        while True:
            seconds = await self._refusals.get()
            await site.stop()
            for connection in tuple(runner.server.connections if runner.server is not None else ()):
                if connection.transport is not None:
                    connection.transport.abort()
            if isinf(seconds):
                await desk.server.close()
                self.buried.set()
                return
            await asyncio.sleep(seconds)
            site = await self.open(runner)


@asynccontextmanager
async def running(
    settings: EngineSettings, clock: Clock = time.monotonic, wall: Clock = time.time
) -> AsyncIterator[RunningEngine]:
    """An engine that listens until the block ends.

    OSError if the address is taken or a TLS file cannot be read (`ssl.SSLError` if it is no PEM).
    """
    with opened(settings) as sockets:
        async with _serving(settings, sockets, clock, wall) as engine:
            yield engine


@asynccontextmanager
async def _serving(
    settings: EngineSettings, sockets: Sequence[Sockets], clock: Clock, wall: Clock
) -> AsyncIterator[RunningEngine]:
    listener = _Listener(settings)
    faults = Faults()
    publishers = [
        Publisher(settings, rank, pair, wall, faults.loses_events) for rank, pair in enumerate(sockets)
    ]
    ranks = Ranks(settings, clock, wall, [publisher.publish for publisher in publishers])
    async with desk_opened(settings, ranks, faults, clock) as desk:
        context = _context(settings, listener, faults, publishers, ranks, desk, clock, wall)
        async with _listening(context, listener, publishers) as engine:
            yield engine


@asynccontextmanager
async def _listening(
    context: Context, listener: _Listener, publishers: Sequence[Publisher]
) -> AsyncIterator[RunningEngine]:
    runner = web.AppRunner(
        app.build(context), access_log=None, handler_cancellation=True, shutdown_timeout=_GRACE_S
    )
    await runner.setup()
    try:
        site = await listener.open(runner)
        engine = RunningEngine(context, listener)
        engine.set_faults(context.settings.faults)
        tasks = await asyncio.TaskGroup().__aenter__()
        keepers = [tasks.create_task(listener.keep(runner, site, context.desk))]
        keepers += [tasks.create_task(publisher.serve_replays()) for publisher in publishers]
        try:
            yield engine
        finally:
            # Left by hand: as a block around the `yield` it would wrap the caller's errors in groups.
            for keeper in keepers:
                keeper.cancel()
            await tasks.__aexit__(None, None, None)
    finally:
        await runner.cleanup()
        context.ranks.close()


def _context(
    settings: EngineSettings,
    listener: _Listener,
    faults: Faults,
    publishers: Sequence[Publisher],
    ranks: Ranks,
    desk: Desk,
    clock: Clock,
    wall: Clock,
) -> Context:
    identity = f"{settings.name}/{settings.model}".encode()
    return Context(
        settings=settings,
        ranks=ranks,
        kv_event_sources={str(rank): publisher.source for rank, publisher in enumerate(publishers)},
        models=Models(settings.model, settings.loras),
        faults=faults,
        journal=Journal(settings.keep_requests),
        clock=clock,
        wall=wall,
        new_id=lambda: secrets.token_hex(8),
        refuse=listener.refuse,
        die=listener.die,
        desk=desk,
        fingerprint=f"vllm-{VERSION}-{hashlib.sha256(identity).hexdigest()[:8]}",
        started=int(wall()),
    )


def _tls_context(settings: EngineSettings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context
