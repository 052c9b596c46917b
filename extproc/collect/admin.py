"""The admin HTTP endpoint of a collector: health, metrics, and what is known of each pod."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from extproc.collect.counters import Counters

PATHS: Mapping[str, str] = {
    "/healthz": "200 while the process runs.",
    "/readyz": "200 once a configuration has been seen and leases have been asked for, 503 before.",
    "/metrics": "Prometheus metrics.",
    "/debug/state": "Which pods are owned, and what was last observed of each.",
}


class Admin:
    """The handlers; `app` wires them to paths."""

    def __init__(
        self, ready: Callable[[], bool], state: Callable[[], Mapping[str, Any]], counters: Counters
    ) -> None:
        self._ready = ready
        self._state = state
        self._counters = counters

    def app(self) -> web.Application:
        app = web.Application()
        handlers = (self._healthz, self._readyz, self._exposition, self._shown)
        for path, handler in zip(PATHS, handlers, strict=True):
            app.router.add_get(path, handler)
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready: waiting for a configuration, or stopping\n")

    async def _exposition(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._counters.exposition(),
            headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _shown(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._state()), content_type="application/json")
