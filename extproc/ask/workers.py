"""HTTP to the admin endpoints of workers: what each of them said, or why it said nothing."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from extproc.supervise import Address

FIRST = Address("127.0.0.1", 9190)
"""Where worker 0 has its admin endpoint unless told otherwise; worker i has the port plus i."""
_STRIDE = 8
"""Ports asked at once while looking for workers: one that is restarting does not end the search."""
_MOST = 256
"""Workers that one host can have."""
_LONGEST_ANSWER = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Question:
    """An HTTP request to an admin endpoint."""

    path: str
    """Percent-encoded where that is needed."""
    timeout_s: float
    body: bytes | None = None
    """JSON to POST; None asks by GET."""


@dataclass(frozen=True, slots=True)
class Said:
    """A worker's answer: a JSON object."""

    address: Address
    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Silent:
    """No worker's answer came from there."""

    address: Address
    why: str
    absent: bool = False
    """Nobody listens there."""


Answer = Said | Silent


async def ask(addresses: tuple[Address, ...], question: Question) -> list[Answer]:
    """What each address says, in their order; without addresses, each worker from FIRST on.

    The search ends at ports where nobody listens. All are asked at the same time.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=question.timeout_s)) as session:
        if addresses:
            return await _all(session, addresses, question)
        answers: list[Answer] = []
        for start in range(FIRST.port, FIRST.port + _MOST, _STRIDE):
            ports = range(start, start + _STRIDE)
            answers += await _all(session, tuple(Address(FIRST.host, port) for port in ports), question)
            if any(isinstance(answer, Silent) and answer.absent for answer in answers):
                break
        return answers


async def ask_any(addresses: tuple[Address, ...], question: Question) -> list[Answer]:
    """One address after the other until a worker answers; its answer is the last one.

    Without addresses, the places of the first workers from FIRST on are tried.
    """
    tried = addresses or tuple(Address(FIRST.host, FIRST.port + at) for at in range(_STRIDE))
    answers: list[Answer] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=question.timeout_s)) as session:
        for address in tried:
            answers.append(await _one(session, address, question))
            if isinstance(answers[-1], Said):
                break
    return answers


async def _all(
    session: aiohttp.ClientSession, addresses: tuple[Address, ...], question: Question
) -> list[Answer]:
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_one(session, address, question)) for address in addresses]
    return [task.result() for task in asked]


async def _one(session: aiohttp.ClientSession, address: Address, question: Question) -> Answer:
    method, data = ("GET", None) if question.body is None else ("POST", BytesIO(question.body))
    url = URL(f"http://{address}{question.path}", encoded=True)
    try:
        async with session.request(method, url, data=data, allow_redirects=False) as response:
            raw = await _whole(response)
            return Said(address, response.status, msgspec.json.decode(raw, type=dict[str, Any]))
    except TimeoutError:
        return Silent(address, f"no answer within {question.timeout_s:g} s")
    except aiohttp.ClientConnectorError as error:
        return Silent(address, _unreachable(error.errno), absent=True)
    except (aiohttp.ClientError, msgspec.DecodeError, ValueError):
        return Silent(address, "what answers there is no kvoy worker")


def _unreachable(errno: int | None) -> str:
    """The system's word for it; a name that has no address has none of the system's numbers."""
    return os.strerror(errno).lower() if errno is not None and errno > 0 else "the name has no address"


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body; raises ValueError if it is longer than any answer of a worker."""
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > _LONGEST_ANSWER:
            raise ValueError("too long")
    return bytes(raw)
