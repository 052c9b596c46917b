"""HTTP to prefill engines: the one door.

Answers are bounded in size and time. A call that is cancelled closes its connection at once, at which the
engine stops computing.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from extproc.handoff.connector import bracketed
from extproc.state.records import Tls
from extproc.state.snapshot import Source

LONGEST_ANSWER = 16 * 2**20
"""Bytes; ``kv_transfer_params`` name every block of the prompt."""
CONNECT_S = 1.0
"""Longest wait for a connection, TLS included."""
_KEPT_ALIVE_S = 4.0
"""How long idle connections are kept: uvicorn closes them after 5 s."""
_KNOWN_S = 10.0
"""How long engine ids are believed,"""
_CA_S = 300.0
"""and what was read from CA files."""
_COPIED = 2**20
"""Bytes above which a body is sent in pieces, so that it does not hold up the event loop."""

Kind = Literal["refused", "timeout", "broken", "status"]
"""``refused``: no connection; ``timeout``: no whole answer in time; ``broken``: reset, too long or no HTTP;
``status``: an answer, but not 200."""


class EngineFailed(Exception):
    """A prefill engine did not do what it was asked. The message holds nothing of the request."""

    def __init__(self, kind: Kind, why: str, status: int = 0, body: bytes = b"") -> None:
        super().__init__(why)
        self.kind: Kind = kind
        self.status = status
        """Of the answer, where kind is ``status``."""
        self.body = body
        """Of the answer, where kind is ``status``."""


T = TypeVar("T")


class _Rank(msgspec.Struct):
    engine_id: str


@dataclass(frozen=True, slots=True)
class _Known(Generic[T]):
    value: T
    until: float


class Engines:
    """Asks prefill engines, while it is open (``async with``)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` in seconds, from any start."""
        self._clock = clock
        self._ids: dict[Source, _Known[dict[str, _Rank]]] = {}
        self._contexts: dict[Tls, _Known[ssl.SSLContext]] = {}

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def post(
        self,
        address: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        tls: Tls | None,
        timeout_s: float,
    ) -> bytes:
        """The body of an answer with status 200. `address` is ``ip:port``. Raises EngineFailed."""
        return await self._ask(
            "POST",
            URL(f"{'http' if tls is None else 'https'}://{address}{path}", encoded=True),
            timeout_s,
            tls,
            headers,
            body if len(body) <= _COPIED else BytesIO(body),
        )

    async def engine_id(self, source: Source, rank: int, timeout_s: float) -> str:
        """What a bootstrap server calls the engine of a data-parallel rank. Raises EngineFailed."""
        known = self._ids.get(source)
        if known is None or known.until <= self._clock():
            known = self._ids[source] = _Known(await self._query(source, timeout_s), self._clock() + _KNOWN_S)
        try:
            return known.value[str(rank)].engine_id
        except KeyError:
            self.forget(source)
            raise EngineFailed("broken", f"its bootstrap server knows no rank {rank}") from None

    def forget(self, source: Source) -> None:
        """Ask for its engine ids anew next time: it may be another life of the engine."""
        self._ids.pop(source, None)

    async def _query(self, source: Source, timeout_s: float) -> dict[str, _Rank]:
        self._ids = {one: known for one, known in self._ids.items() if known.until > self._clock()}
        url = URL(f"http://{bracketed(source.host)}:{source.port}/query")
        try:
            raw = await self._ask("GET", url, timeout_s)
        except EngineFailed as error:
            if error.kind != "status":
                raise
            # A verdict on our question, not on the client's request.
            raise EngineFailed("broken", f"its bootstrap server answers {error.status}") from None
        try:
            return msgspec.json.decode(raw, type=dict[str, _Rank])
        except msgspec.DecodeError:
            raise EngineFailed("broken", "its bootstrap server names no engine ids") from None

    async def _ask(
        self,
        method: str,
        url: URL,
        timeout_s: float,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | BytesIO | None = None,
    ) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                async with self._http.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    ssl=self._context(tls),
                    server_hostname=None if tls is None else tls.server_name,
                ) as response:
                    return _accepted(response.status, await _bounded(response.content))
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise EngineFailed("refused", f"no connection: {_text(error)}") from error
        except TimeoutError:
            raise EngineFailed("timeout", f"no answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise EngineFailed("broken", _text(error)) from error

    def _context(self, tls: Tls | None) -> ssl.SSLContext | bool:
        """One for all calls of the same kind: connections are pooled by it."""
        if tls is None:
            return True
        known = self._contexts.get(tls)
        if known is None or known.until <= self._clock():
            known = self._contexts[tls] = _Known(_read(tls), self._clock() + _CA_S)
        return known.value


def _read(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:
        raise EngineFailed("refused", f"its CA file {tls.ca_file}: {error.strerror or error}") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _accepted(status: int, body: bytes) -> bytes:
    if status != 200:
        raise EngineFailed("status", f"status {status}", status, body)
    return body


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > LONGEST_ANSWER:
            raise ValueError(f"its answer has more than {LONGEST_ANSWER} bytes")
    return bytes(body)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
