"""A minimal engine: an HTTP server on a free port of 127.0.0.1 that answers as a test tells it to."""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class StubEngine:
    """Answers 200 with its name, unless `handler` is replaced; remembers headers and bodies."""

    name: str
    handler: Handler | None = None
    reads: bool = True
    """Whether it has the whole body before `handler` runs; if not, that reads it."""
    port: int = 0
    seen: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(dict(request.headers))
        if self.reads:
            self.bodies.append(await request.read())
        if self.handler is not None:
            return await self.handler(request)
        return web.json_response({"served_by": self.name})
