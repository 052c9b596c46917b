"""Asks a child's addresses whether it is ready."""

import asyncio
import contextlib

from extproc.supervise.address import Address
from extproc.supervise.plan import Probe

TIMEOUT_S = 2.0
LONGEST_ANSWER = 4096


async def why_not_ready(probes: tuple[Probe, ...]) -> str | None:
    """None if all probes hold; otherwise what the first that does not hold says."""
    for probe in probes:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await _asked(probe)
        except TimeoutError:
            return f"{probe.address} does not answer"
        except OSError as error:
            return f"{probe.address} does not accept connections ({_short(error)})"
        if answer is not None:
            return answer
    return None


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to ``unix:PATH`` or ``host:port``; raises OSError."""
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    there = Address.parse(address)
    return await asyncio.open_connection(there.host, there.port)


async def _asked(probe: Probe) -> str | None:
    reader, writer = await connect(probe.address)
    try:
        if probe.path is None:
            return None
        writer.write(f"GET {probe.path} HTTP/1.1\r\nHost: kvoy\r\nConnection: close\r\n\r\n".encode())
        return _complaint(probe.path, await _answer(reader))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    while len(answer) < LONGEST_ANSWER and (more := await reader.read(LONGEST_ANSWER)):
        answer += more
    return answer


def _complaint(path: str, answer: bytes) -> str | None:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].split(b" ")[1:2]
    if status == [b"200"]:
        return None
    if not status:
        return f"{path} gives no HTTP answer"
    said = " ".join(body.decode(errors="replace").split())[:200]
    return f"{path} says {status[0].decode(errors='replace')} {said}".rstrip()


def _short(error: OSError) -> str:
    return error.strerror or str(error)
