"""The admin HTTP endpoint of a worker: health, metrics, reasons, state."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from extproc.explain import Journal
from extproc.metrics import Metrics
from extproc.reservations import Reservations
from extproc.state.records import label
from extproc.state.snapshot import Snapshot

PATHS: Mapping[str, str] = {
    "/healthz": "200 while the process runs.",
    "/readyz": "200 once a complete configuration has been seen, 503 before that and while draining.",
    "/metrics": "Prometheus metrics.",
    "/explain/{request_id}": "Why this worker placed or refused a request; 404 when it did not decide on it.",
    "/debug/state": "Generation, models and endpoints in force, requests in flight.",
}


class Admin:
    """The handlers; `app` wires them to paths."""

    def __init__(
        self,
        ready: Callable[[], bool],
        snapshot: Callable[[], Snapshot],
        reservations: Reservations,
        journal: Journal,
        metrics: Metrics,
    ) -> None:
        self._ready = ready
        self._snapshot = snapshot
        self._reservations = reservations
        self._journal = journal
        self._metrics = metrics

    def app(self) -> web.Application:
        app = web.Application()
        handlers = (self._healthz, self._readyz, self._exposition, self._explain, self._state)
        for path, handler in zip(PATHS, handlers, strict=True):
            app.router.add_get(path, handler)
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready: waiting for a complete configuration, or draining\n")

    async def _exposition(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.exposition(),
            headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _explain(self, request: web.Request) -> web.Response:
        told = self._journal.explain(request.match_info["request_id"])
        if told is None:
            return _json({"error": "this worker has no decision under this request id"}, status=404)
        return _json(told)

    async def _state(self, _: web.Request) -> web.Response:
        snapshot = self._snapshot()
        pods = {endpoint.pod for endpoints in snapshot.endpoints.values() for endpoint in endpoints}
        return _json(
            {
                "epoch": snapshot.epoch,
                "generation": snapshot.generation,
                "models": [name for name, _ in snapshot.models],
                "endpoints": {
                    label(server): [endpoint.address for endpoint in endpoints]
                    for server, endpoints in sorted(snapshot.endpoints.items())
                },
                "in_flight": {
                    "own": {label(pod): n for pod, n in self._reservations.counts().items()},
                    "all": {label(pod): self._reservations.load(pod) for pod in sorted(pods)},
                },
            }
        )


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
