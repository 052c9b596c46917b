"""HTTP to one pod: https as its ModelServer says, answers bounded in size and time."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from socket import AddressFamily

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from extproc.collect.sites import Site
from extproc.state.records import Tls

TIMEOUT_S = 2.0
"""Longest wait for one answer."""
LONGEST_ANSWER = 8 * 2**20
"""Bytes; an engine's metrics have 70 KB per data-parallel rank."""


class Unreachable(Exception):
    """The pod did not answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the pod answered."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Connection:
    """Keeps connections to one pod open; `opened` makes it."""

    session: aiohttp.ClientSession
    base_url: str
    """Without a path."""

    async def get(self, path: str) -> Answer:
        """Raises `Unreachable`."""
        try:
            async with self.session.get(f"{self.base_url}{path}", allow_redirects=False) as response:
                body = await _bounded(response.content)
        except TimeoutError:
            raise Unreachable(f"{path} did not answer within {TIMEOUT_S:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"{path}: {_text(error)}") from error
        return Answer(response.status, body)


@asynccontextmanager
async def opened(site: Site) -> AsyncIterator[Connection]:
    """A connection that closes with the context. Raises `Unreachable` for a CA file that cannot be read."""
    tls = site.server.tls
    if tls is None:
        base_url, connector = f"http://{site.address}", aiohttp.TCPConnector()
    else:
        # The name is what TLS verifies, the address is where it connects.
        base_url = f"https://{tls.server_name}:{site.address.rpartition(':')[2]}"
        connector = aiohttp.TCPConnector(ssl=_context(tls), resolver=_Always(site.ip))
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
    ) as session:
        yield Connection(session, base_url)


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > LONGEST_ANSWER:
            raise ValueError(f"its answer has more than {LONGEST_ANSWER} bytes")
    return bytes(body)


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:
        raise Unreachable(f"its CA file {tls.ca_file}: {error.strerror or error}") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


class _Always(AbstractResolver):
    """Knows one address, whatever the name."""

    def __init__(self, ip: str) -> None:
        self._ip = ip

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        own = AddressFamily.AF_INET6 if ":" in self._ip else AddressFamily.AF_INET
        return [ResolveResult(hostname=host, host=self._ip, port=port, family=own, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing to close."""
