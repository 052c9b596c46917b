"""Asks other engines."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from benchmarks.engine.cache import BlockHash
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.part import TransferError
from benchmarks.engine.transfer.wire import Found, Sought, Wanted

Locate = Callable[[], Awaitable[str]]
"""Finds out the ``host:port`` to fetch from; TransferError if there is none."""


def at(host: object, port: object) -> Locate:
    """A place that is known."""

    async def place() -> str:
        return f"{host}:{port}"

    return place


class LostError(TransferError):
    """The other engine hung up while it was asked."""


class Client:
    """What this engine says to others."""

    def __init__(
        self, settings: EngineSettings, session: aiohttp.ClientSession, tasks: asyncio.TaskGroup
    ) -> None:
        """``session`` has no limits of its own; ``tasks`` runs what nobody waits for, until `close`."""
        self.settings = settings
        self._session = session
        self._tasks = tasks
        self._met: set[str] = set()
        self._notices: set[asyncio.Task[None]] = set()

    async def meet(self, address: str, wanted: Wanted) -> None:
        """The first contact with an engine takes its time. TransferError if it is not the one meant."""
        name = wanted.engine_id or address
        if name in self._met:
            return
        await self._post(address, "handshake", wanted)
        await asyncio.sleep(self.settings.handshake_s)
        self._met.add(name)

    async def fetch(self, address: str, wanted: Wanted) -> None:
        """The blocks of a prompt; TransferError if they do not come, LostError among them."""
        await self._post(address, "kv", wanted)

    def release(self, locate: Locate, wanted: Wanted) -> None:
        """Tell an engine, soon, that nobody comes for these blocks. Whether it hears that is its affair."""
        notice = self._tasks.create_task(self._notify(locate, wanted))
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    async def known(self, address: str, hashes: list[BlockHash]) -> int:
        """How many of these blocks, from the first on, an engine has cached."""
        answer = await self._post(address, "known", Sought(hashes))
        return msgspec.json.decode(answer, type=Found).blocks

    async def query(self, bootstrap: str) -> dict[str, str]:
        """Who is behind a mooncake bootstrap server: engine id to the address of its first worker."""
        try:
            async with self._session.get(f"{bootstrap}/query") as answer:
                ranks = await answer.json()
        except (aiohttp.ClientError, ValueError) as error:
            raise TransferError(f"{bootstrap}: {error}") from None
        return {rank["engine_id"]: rank["worker_addr"]["0"]["0"] for rank in ranks.values()}

    def close(self) -> None:
        """Say no more."""
        for notice in self._notices:
            notice.cancel()

    async def _notify(self, locate: Locate, wanted: Wanted) -> None:
        try:
            await self._post(await locate(), "release", wanted)
        except TransferError:
            return

    async def _post(self, address: str, path: str, message: msgspec.Struct) -> bytes:
        try:
            async with self._session.post(
                f"http://{address}/{path}", data=msgspec.json.encode(message)
            ) as answer:
                text = await answer.read()
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            raise TransferError(f"{address}: {error}") from None
        except aiohttp.ClientError as error:
            raise LostError(f"{address}: {error}") from None
        if answer.status != 200:
            raise TransferError(f"{address}: {text.decode()}")
        return text
