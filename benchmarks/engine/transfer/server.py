"""Listens on the KV port, where other engines fetch."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.dock import Dock
from benchmarks.engine.transfer.wire import Found, Sought, Wanted

_GRACE_S = 0.01

Handler = Callable[[web.Request], Awaitable[web.Response]]


class KvServer:
    """The side channel, or bootstrap server, of one engine."""

    def __init__(self, settings: EngineSettings, dock: Dock) -> None:
        self._settings = settings
        self._dock = dock
        self._runner = web.AppRunner(
            self._application(), access_log=None, handler_cancellation=True, shutdown_timeout=_GRACE_S
        )
        self.port = settings.kv_port

    async def open(self) -> None:
        """Listen; OSError if the address is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self.port, reuse_address=True)
        await site.start()
        self.port = site.port

    async def close(self) -> None:
        """Stop listening and hang up."""
        await self._runner.cleanup()

    def query(self) -> dict[str, object]:
        """Mooncake's ``/query``: rank to engine id, and the address of each tensor and pipeline rank."""
        workers = {
            str(rank): {"0": f"tcp://{self._settings.host}:{self.port}"}
            for rank in range(self._settings.tensor_parallel_size)
        }
        return {"0": {"engine_id": self._dock.engine_id, "worker_addr": workers}}

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=0)
        app.router.add_post("/handshake", self._handshake)
        app.router.add_post("/kv", self._give)
        app.router.add_post("/release", self._release)
        app.router.add_post("/known", self._known)
        if self._settings.connector == "mooncake":
            app.router.add_get("/query", self._query)
        return app

    async def _handshake(self, request: web.Request) -> web.Response:
        self._check(msgspec.json.decode(await request.read(), type=Wanted))
        return web.Response()

    async def _give(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=Wanted)
        self._check(wanted)
        kept = await self._dock.take(wanted.key, wanted.waits)
        if kept is None:
            raise web.HTTPNotFound(text=f"nothing is kept for {wanted.key}")
        whole = False
        try:
            if kept.prompt != wanted.prompt:
                raise web.HTTPConflict(text=f"what is kept for {wanted.key} is of another prompt")
            await asyncio.sleep(self._settings.transfer_s_per_token * wanted.tokens)
            whole = True
        finally:
            self._dock.sent(kept, whole)
        return web.Response()

    async def _release(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=Wanted)
        self._check(wanted)
        self._dock.release(wanted.key)
        return web.Response()

    async def _known(self, request: web.Request) -> web.Response:
        sought = msgspec.json.decode(await request.read(), type=Sought)
        return web.Response(body=msgspec.json.encode(Found(self._dock.known(sought.hashes))))

    async def _query(self, _: web.Request) -> web.Response:
        return web.json_response(self.query())

    def _check(self, wanted: Wanted) -> None:
        """HTTPConflict if the caller takes this engine for another one."""
        own = self._settings
        for field, given, here in (
            ("connector", wanted.connector, own.connector),
            ("engine_id", wanted.engine_id, self._dock.engine_id),
            ("tensor_parallel_size", wanted.tensor_parallel_size, own.tensor_parallel_size),
        ):
            if given is not None and given != here:
                raise web.HTTPConflict(text=f"{field} is {here} here, not {given}")
