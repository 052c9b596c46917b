import asyncio

import aiohttp
import pytest

from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.client import Client, at
from benchmarks.engine.transfer.part import TransferError
from benchmarks.engine.transfer.wire import Wanted

NOBODY = "127.0.0.1:1"


@pytest.fixture
async def client(http: aiohttp.ClientSession):
    async with asyncio.TaskGroup() as tasks:
        ours = Client(EngineSettings(handshake_s=0.0), http, tasks)
        yield ours
        ours.close()


def wanted(engine_id: str | None = "prefiller") -> Wanted:
    return Wanted("nixl", engine_id, 1, "k", "", waits=False)


async def test_engines_shake_hands_once(client: Client, a_pair) -> None:
    p, _ = await a_pair("nixl")
    await client.meet(f"{p.host}:{p.kv_port}", wanted())
    await client.meet(NOBODY, wanted())
    with pytest.raises(TransferError):
        await client.meet(NOBODY, wanted("another"))


async def test_an_engine_that_refuses_says_why(client: Client, a_pair) -> None:
    p, _ = await a_pair("nixl")
    with pytest.raises(TransferError, match="nothing is kept for k"):
        await client.fetch(f"{p.host}:{p.kv_port}", wanted())


@pytest.mark.parametrize("address", [NOBODY, "127.0.0.1:none", "None:None"])
async def test_nobody_there_is_an_error(client: Client, address: str) -> None:
    with pytest.raises(TransferError):
        await client.fetch(address, wanted())
    with pytest.raises(TransferError):
        await client.query(f"http://{address}")


async def test_whether_a_release_is_heard_is_nobodys_affair_here(
    client: Client, a_pair, prefill, until
) -> None:
    p, _ = await a_pair("nixl")
    key = (await prefill(p)).params["remote_request_id"]
    client.release(at("127.0.0.1", 1), wanted())
    client.release(at(p.host, p.kv_port), Wanted("nixl", "another", 1, key, "", waits=False))
    client.release(at(p.host, p.kv_port), Wanted("nixl", "prefiller", 1, key, "", waits=False))
    await until(lambda: p.leases == 0)
