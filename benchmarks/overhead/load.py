"""HTTP/1.1 load over raw sockets.

A general HTTP client costs several times what Envoy does per request and would drown the difference this
benchmark looks for; every request of a run has the same bytes, and every answer a content-length.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class BadAnswer(Exception):
    """The gateway answered something else than 200, or closed the connection."""


@dataclass(slots=True)
class Tally:
    """What a load saw: one latency in seconds per answered request."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds


def request_bytes(host: str, body: bytes) -> bytes:
    """A chat request as it goes over the wire."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nuser-agent: kvoy-bench\r\naccept: */*\r\n"
        f"content-type: application/json\r\nauthorization: Bearer none\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection: sends a request, calls `answered` when its response is whole."""

    def __init__(self, answered: Callable[["Connection"], None], failed: asyncio.Future[None]) -> None:
        self._answered = answered
        self._failed = failed
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, at: float) -> None:
        """Send a request whose latency counts from `at` (perf_counter seconds)."""
        assert self._transport is not None
        self.sent_at = at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end)
        if not self._buffer.startswith(b"HTTP/1.1 200 ") or length is None:
            self._fail(self._buffer[:300].decode("latin-1"))
        elif len(self._buffer) >= end + 4 + int(length[1]):
            self._buffer = b""
            self._answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._buffer or exc is not None:
            self._fail(f"connection lost: {exc}")

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def _fail(self, why: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(BadAnswer(why))


class Load:
    """The connections of one run against one address."""

    def __init__(self, host: str, port: int, body: bytes) -> None:
        self.request = request_bytes(f"{host}:{port}", body)
        self.tally = Tally()
        self._address = (host, port)
        self._connections: list[Connection] = []
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> bool:
        return self._ended.done()

    def end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def connect(self, answered: Callable[[Connection], None]) -> Connection:
        """A new connection, which calls `answered` after each of its responses."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(answered, self._ended), *self._address
        )
        self._connections.append(connection)
        return connection

    async def finish(self, started: float) -> Tally:
        """Wait for the end, close everything, and return what was seen. Raises `BadAnswer`."""
        try:
            await self._ended
        finally:
            for connection in self._connections:
                connection.close()
            await asyncio.sleep(0)
        self.tally.seconds = time.perf_counter() - started
        return self.tally


async def closed_loop(host: str, port: int, body: bytes, *, connections: int, seconds: float) -> Tally:
    """Each connection sends its next request when the last is answered, for `seconds`.

    Raises `BadAnswer` on the first answer that is not 200.
    """
    load = Load(host, port, body)
    started, busy = time.perf_counter(), connections

    def answered(connection: Connection) -> None:
        nonlocal busy
        now = time.perf_counter()
        load.tally.latencies.append(now - connection.sent_at)
        if now - started < seconds:
            connection.send(load.request, now)
            return
        busy -= 1
        if not busy:
            load.end()

    for _ in range(connections):
        (await load.connect(answered)).send(load.request, time.perf_counter())
    return await load.finish(started)


async def fixed_rate(host: str, port: int, body: bytes, *, rate: float, seconds: float) -> Tally:
    """Requests leave on schedule whatever happened to earlier ones; latency counts from the schedule.

    There is one at least, however low the rate. Raises `BadAnswer` on the first answer that is not 200.
    """
    load = Load(host, port, body)
    idle: list[Connection] = []
    total = max(1, int(rate * seconds))

    def answered(connection: Connection) -> None:
        load.tally.latencies.append(time.perf_counter() - connection.sent_at)
        idle.append(connection)
        if len(load.tally.latencies) == total:
            load.end()

    started = time.perf_counter()
    for number in range(total):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if load.over:
            break
        (idle.pop() if idle else await load.connect(answered)).send(load.request, due)
    return await load.finish(started)
