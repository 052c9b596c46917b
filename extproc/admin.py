"""The admin HTTP endpoint of a worker: health, metrics, reasons, what would happen, state."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from extproc.request import Head, bare
from extproc.state.live import Engine, Load
from extproc.state.records import label
from extproc.state.snapshot import Snapshot

PATHS: Mapping[str, str] = {
    "GET /healthz": "200 while the process runs.",
    "GET /readyz": "200 while the worker takes requests: from a complete configuration on until it drains.",
    "GET /metrics": "Prometheus metrics.",
    "GET /explain/{request_id}": "Why this worker placed or refused a request, and how it ended; 404 when it "
    "did not decide on it.",
    "POST /route": "What would happen to a request now; nothing is sent, reserved or learnt. Takes "
    "`{method, path, headers, body}`, where `body` is the request's JSON, or a string that holds it; without "
    "them, `method` is `POST` and `path` is `/v1/chat/completions`.",
    "GET /debug/state": "Generation, models and endpoints in force; requests in flight; engines as the "
    "collectors see them; entries of the cache indexes; how far this worker is behind the others.",
}
LARGEST_BODY = 16 * 2**20
"""Bytes of a request's body that `POST /route` takes."""
_LARGEST_ASKED = 2 * LARGEST_BODY + 2**20
"""Bytes of what is posted: JSON inside a string has its quotes escaped."""


@dataclass(frozen=True, slots=True)
class Views:
    """What the admin endpoint looks at; each is called when somebody asks."""

    ready: Callable[[], bool]
    """Whether requests can be decided."""
    exposition: Callable[[], bytes]
    """Metrics as Prometheus text."""
    explain: Callable[[str], Mapping[str, Any] | None]
    """A past decision by request id."""
    preview: Callable[[Head, bytes], Awaitable[Mapping[str, Any]]]
    """What would be decided on a request, and that nothing of it stays."""
    snapshot: Callable[[], Snapshot]
    """The configuration in force."""
    own: Callable[[], Mapping[str, Load]]
    """Endpoint key to what this worker has in flight there."""
    load: Callable[[str], Load]
    """What all workers have in flight to an endpoint key."""
    engines: Callable[[], Iterable[tuple[Engine, float]]]
    """Each engine as its collector saw it last, and the seconds since then."""
    entries: Callable[[], Mapping[str, int]]
    """Namespace of the cache index to its number of entries."""
    lag_s: Callable[[], float | None]
    """How old the newest statement of another process was when it arrived; None before the first."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is posted to ``/route``."""

    body: msgspec.Raw = msgspec.Raw()
    """The request's body: JSON as it is written, or a string that holds it."""
    method: str = "POST"
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = {}

    def head(self) -> Head:
        """As if Envoy had shown these headers: names in lower case, the path without query and last slash."""
        return Head(
            self.method.upper(),
            bare(self.path),
            {name.lower(): value for name, value in self.headers.items()},
        )

    def content(self) -> bytes:
        """The body's bytes, as a client would send them."""
        raw = bytes(self.body)
        return msgspec.json.decode(raw, type=str).encode() if raw.startswith(b'"') else raw


_decode_asked = msgspec.json.Decoder(Asked).decode


class Admin:
    """The handlers; `app` wires them to paths."""

    def __init__(self, views: Views) -> None:
        self._views = views

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_LARGEST_ASKED)
        handlers = (
            self._healthz,
            self._readyz,
            self._exposition,
            self._explain,
            self._route,
            self._state,
        )
        for listed, handler in zip(PATHS, handlers, strict=True):
            method, path = listed.split()
            app.router.add_route(method, path, handler)
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._views.ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready: waiting for a complete configuration, or draining\n")

    async def _exposition(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._views.exposition(),
            headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _explain(self, request: web.Request) -> web.Response:
        told = self._views.explain(request.match_info["request_id"])
        if told is None:
            return _error(404, "this worker has no decision under this request id")
        return _json(told)

    async def _route(self, request: web.Request) -> web.Response:
        if not self._views.ready():
            return _error(503, "this worker is not ready: it has no complete configuration, or is draining")
        try:
            asked = _decode_asked(await request.read())
            content = asked.content()
        except web.HTTPRequestEntityTooLarge:
            return _too_large()
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return _error(400, f"not a JSON object {{method, path, headers, body}}: {error}")
        if len(content) > LARGEST_BODY:
            return _too_large()
        return _json(await self._views.preview(asked.head(), content))

    async def _state(self, _: web.Request) -> web.Response:
        return _json(_state(self._views))


def _state(views: Views) -> dict[str, Any]:
    snapshot = views.snapshot()
    pools = (*snapshot.endpoints.values(), *snapshot.prefill.values())
    keys = sorted({endpoint.key for endpoints in pools for endpoint in endpoints})
    return {
        "epoch": snapshot.epoch,
        "generation": snapshot.generation,
        "models": [name for name, _ in snapshot.models],
        "endpoints": {
            label(server): [{"engine": label(e.key), "address": e.address} for e in endpoints]
            for server, endpoints in sorted(snapshot.endpoints.items())
        },
        "in_flight": {
            "own": {label(key): load._asdict() for key, load in sorted(views.own().items())},
            "all": {label(key): views.load(key)._asdict() for key in keys},
        },
        "engines": {label(engine.endpoint): _engine(engine, age_s) for engine, age_s in views.engines()},
        "cache_entries": views.entries(),
        "lag_s": views.lag_s(),
    }


def _engine(engine: Engine, age_s: float) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(engine)
    del values["endpoint"], values["type"]
    return {**values, "age_s": round(age_s, 3)}


def _too_large() -> web.Response:
    return _error(413, f"the body is larger than the {LARGEST_BODY // 2**20} MiB that can be looked at here")


def _error(status: int, why: str) -> web.Response:
    return _json({"error": why}, status)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
