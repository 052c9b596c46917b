import asyncio
import time

import aiohttp
import pytest

from benchmarks.engine.batch import Batch, Limits
from benchmarks.engine.cache import BlockCache
from benchmarks.engine.families import Families
from benchmarks.engine.runtime import Origin
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.client import Client, Locate, at
from benchmarks.engine.transfer.counters import TransferCounters
from benchmarks.engine.transfer.origins import Nowhere, Peers, Prefill
from benchmarks.engine.transfer.part import TransferError
from benchmarks.engine.transfer.wire import Wanted

NOBODY = at("127.0.0.1", 1)


@pytest.fixture
async def client(http: aiohttp.ClientSession):
    peers = ("127.0.0.1:1",)
    async with asyncio.TaskGroup() as tasks:
        ours = Client(EngineSettings(handshake_s=0.0, connector="http", kv_peers=peers), http, tasks)
        yield ours
        ours.close()


def a_prefill(client: Client, families: Families, locate: Locate = NOBODY, **more: object) -> Prefill:
    settings = EngineSettings(connector="nixl")
    batch = Batch(Limits(1, 1, 1, 1.0), BlockCache(1, 1))
    counters = TransferCounters(families, settings, batch)
    return Prefill(
        client, counters, time.monotonic, locate, Wanted("nixl", None, None, "k", "", False), **more
    )


async def still_waits(origin: Origin) -> None:
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(origin.fetch(9))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


async def test_a_prompt_that_does_not_come_is_counted(client: Client) -> None:
    families = Families()
    with pytest.raises(TransferError):
        await a_prefill(client, families).fetch(9)
    assert b"vllm:nixl_num_failed_transfers_total{" in families.render()
    assert b'_failed_transfers_total{engine="0",model_name="sim-model"} 1.0' in families.render()


async def test_when_the_time_is_over_it_fails_or_waits_in_vain(client: Client) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    with pytest.raises(TransferError, match="nothing came for k"):
        await a_prefill(client, Families(), never, timeout_s=0.0).fetch(9)
    await still_waits(a_prefill(client, Families(), never, timeout_s=0.0, is_patient=True))


async def test_who_has_not_fetched_tells_the_prefill_engine_once(client: Client) -> None:
    told = asyncio.Event()
    times = 0

    async def place() -> str:
        nonlocal times
        times += 1
        told.set()
        return "127.0.0.1:1"

    origin = a_prefill(client, Families(), place)
    origin.leave()
    origin.leave()
    await told.wait()
    assert times == 1


async def test_nowhere_never_answers() -> None:
    await still_waits(Nowhere())
    Nowhere().leave()


async def test_peers_that_are_not_there_have_nothing(client: Client) -> None:
    peers = Peers(client, 16, 40, [b"a", b"b"])
    assert await peers.fetch(40) == 0
    peers.leave()
