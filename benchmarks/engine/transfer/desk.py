"""One engine's transfers: what other engines fetch here, and what this one fetches there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import aiohttp

from benchmarks.engine.faults import Faults
from benchmarks.engine.ranks import Ranks
from benchmarks.engine.runtime import Clock
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.client import Client
from benchmarks.engine.transfer.connectors.mooncake import Mooncake
from benchmarks.engine.transfer.connectors.nixl import Nixl
from benchmarks.engine.transfer.connectors.nixl_push import NixlPush
from benchmarks.engine.transfer.connectors.sglang import SGLang
from benchmarks.engine.transfer.connectors.shared import Shared
from benchmarks.engine.transfer.counters import TransferCounters
from benchmarks.engine.transfer.dock import Dock
from benchmarks.engine.transfer.origins import Travel
from benchmarks.engine.transfer.part import Asked, Connector, Part
from benchmarks.engine.transfer.server import KvServer


class Alone:
    """No connector: a vLLM ignores what bodies say about transfers."""

    def part(self, asked: Asked) -> Part:
        return Part(asked.works)


@dataclass(frozen=True, slots=True)
class Desk:
    """What the HTTP API needs of transfers."""

    dock: Dock
    server: KvServer
    connector: Connector
    faults: Faults

    def part(self, asked: Asked) -> Part:
        """`Connector.part`, with the fault that makes prefill engines forget what they were asked for."""
        part = self.connector.part(asked)
        if part.is_prefill and self.faults.omits_params():
            return Part([replace(work, keep=None) for work in part.works], True)
        return part


@asynccontextmanager
async def opened(settings: EngineSettings, ranks: Ranks, faults: Faults, clock: Clock) -> AsyncIterator[Desk]:
    """Listens on the KV port, if there is a connector, until the block ends; OSError if it is taken."""
    runtime = ranks.runtimes[0]
    counters = TransferCounters(runtime.metrics.families, settings, runtime.batch)
    dock = Dock(settings, runtime, counters, clock)
    server = KvServer(settings, dock)
    async with _session() as session:
        tasks = await asyncio.TaskGroup().__aenter__()
        client = Client(settings, session, tasks)
        travel = Travel(client, counters, clock)
        connector = _connector(settings, dock, server, client, travel)
        try:
            if settings.connector != "none":
                await server.open()
            yield Desk(dock, server, connector, faults)
        finally:
            await server.close()
            dock.close()
            client.close()
            # Left by hand: as a block around the `yield` it would wrap the caller's errors in groups.
            await tasks.__aexit__(None, None, None)


def _session() -> aiohttp.ClientSession:
    # A connection that was open when the other engine died says nothing about the next one.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout())


def _connector(
    settings: EngineSettings, dock: Dock, server: KvServer, client: Client, travel: Travel
) -> Connector:
    match settings.connector:
        case "none":
            return Alone()
        case "nixl":
            return Nixl(settings, dock, server, travel)
        case "nixl-push":
            return NixlPush(settings, dock, server, travel)
        case "mooncake":
            return Mooncake(settings, dock, client, travel)
        case "http" | "lmcache":
            return Shared(settings, client)
        case "sglang":
            return SGLang(settings, dock, travel)
