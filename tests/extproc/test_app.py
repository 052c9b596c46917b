import asyncio
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2
from grpc import aio
from redis.asyncio import Redis

from extproc import app
from extproc.settings import Settings
from extproc.state import keys, live
from extproc.state.records import Publication, Put, Record
from extproc.state.store import Store
from extproc.supervise import claim_addresses
from extproc.testing import a_pod, a_route, a_rule, a_server

Request = external_processor_pb2.ProcessingRequest

WORLD: tuple[Record, ...] = (a_route("r", a_rule("s"), model="m"), a_server("s"), a_pod("a", "s"))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not (holds := condition()) or (asyncio.iscoroutine(holds) and not await holds):
            await asyncio.sleep(0.01)


async def publish(store: Store) -> None:
    assert await store.configuration.publish(
        Publication("epoch", 1, tuple(Put(record) for record in WORLD), whole=True)
    )


@pytest.fixture
def settings(valkey: object) -> AsyncIterator[Settings]:
    folder = tempfile.mkdtemp(prefix="kvoy-")
    (admin,) = claim_addresses("127.0.0.1:0", 1)
    yield Settings("extproc-0", f"{folder}/extproc-0.sock", valkey.url, "g", admin, drain_s=1.0)
    shutil.rmtree(folder)


@asynccontextmanager
async def serving(settings: Settings, store: Store) -> AsyncIterator[asyncio.Event]:
    """A worker in this process; yields what stops it."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.serve(settings, store, stop))
        try:
            yield stop
        finally:
            stop.set()
            gc.unfreeze()


async def status(settings: Settings, path: str) -> int:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://{settings.admin}{path}") as response:
                return response.status
        except aiohttp.ClientError:
            return 0


async def place(settings: Settings) -> None:
    """Send one chat request through ext_proc."""
    pairs = [(":method", b"POST"), (":path", b"/v1/chat/completions")]
    headers = [{"key": key, "raw_value": value} for key, value in pairs]
    messages = (
        Request(request_headers={"headers": {"headers": headers}}),
        Request(request_body={"body": b'{"model":"m","messages":[]}', "end_of_stream": True}),
    )
    async with aio.insecure_channel(f"unix:{settings.socket}") as channel:
        call = channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")()
        for message in messages:
            await call.write(message.SerializeToString())
            await call.read()


async def test_a_worker_listens_only_once_it_knows_the_whole_configuration(
    settings: Settings, store: Store, open_store: Callable[[], Store]
) -> None:
    async with serving(settings, open_store()):
        await until(lambda: is_status(settings, "/healthz", 200))
        assert await status(settings, "/readyz") == 503
        assert not Path(settings.socket).exists()

        await publish(store)

        await until(lambda: is_status(settings, "/readyz", 200))
        await until(Path(settings.socket).exists)


async def test_a_placed_request_is_shared_and_withdrawn_when_the_worker_stops(
    settings: Settings, store: Store, open_store: Callable[[], Store], raw: Redis
) -> None:
    await publish(store)
    async with serving(settings, open_store()):
        await until(Path(settings.socket).exists)
        await place(settings)
        await until(lambda: is_stated(raw, {"pod/default/a": 1}))

    assert await is_stated(raw, {})


async def test_a_worker_that_never_got_a_configuration_stops_at_once(
    settings: Settings, open_store: Callable[[], Store]
) -> None:
    async with asyncio.timeout(20):
        async with serving(settings, open_store()) as stop:
            await until(lambda: is_status(settings, "/healthz", 200))
            stop.set()

    assert not Path(settings.socket).exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_process_ends_cleanly_on_a_signal(
    settings: Settings, store: Store, how: signal.Signals
) -> None:
    await publish(store)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc", "--name", settings.name, "--socket", settings.socket),
        *("--redis", settings.redis_url, "--group", settings.group, "--admin", settings.admin),
    )
    try:
        await until(Path(settings.socket).exists)
        os.kill(process.pid, how)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def is_status(settings: Settings, path: str, expected: int) -> bool:
    return await status(settings, path) == expected


async def is_stated(raw: Redis, requests: dict[str, int]) -> bool:
    """The newest statement on the live stream says so."""
    newest = await raw.xrevrange(keys.live("g"), count=1)
    stated = [statement for _, fields in newest for statement in live.decode(fields[b"f"])]
    return [{key: load.requests for key, load in each.loads.items()} for each in stated] == [requests]
