"""Collectors as processes do it: on a real Valkey, with engines that answer over HTTP."""

import asyncio
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress

import aiohttp
import msgspec
import pytest

from benchmarks.engine import EngineSettings, running
from extproc.cache import frames, snapshots
from extproc.cache.frames import Namespace, Operation
from extproc.collect import app
from extproc.collect import snapshots as writer
from extproc.collect.settings import Settings
from extproc.state.live import Engine, life
from extproc.state.records import Publication, Put
from extproc.state.store import Positions, Store, StoreError, Subject
from extproc.supervise import claim_addresses
from extproc.testing import a_pod, a_route, a_rule, a_server


def free_address():
    (address,) = claim_addresses("127.0.0.1:0", 1)
    return address


@pytest.fixture
async def pods(start_pod):
    """Three engines."""
    return [await start_pod() for _ in range(3)]


@pytest.fixture
def publish(pods, store):
    async def publish():
        records = [a_route("r", a_rule("s"), model="m"), a_server("s")]
        for at in range(PODS):
            port = int(pods[at % len(pods)].address.partition(":")[2])
            records.append(a_pod(f"p{at}", "s", ip="127.0.0.1", port=port))
        changes = tuple(Put(record) for record in records)
        assert await store.configuration.publish(Publication("epoch", 1, changes, whole=True))

    return publish


PODS = 16
"""Pods, on three engines: as many as it takes for two collectors to both have some."""
NAMES = {f"pod/default/p{at}" for at in range(PODS)}


class Live:
    """Everything stated of engines, as it comes."""

    def __init__(self, store):
        self._store = store
        self._positions = Positions("0-0", "0-0")
        self.engines = []

    async def read(self):
        found = await self._store.streams.read(self._positions, 0)
        self._positions = found.positions
        self.engines += [one for one in found.statements if isinstance(one, Engine)]
        return self.engines

    async def newest(self):
        with suppress(StoreError):
            await self.read()
        return {one.endpoint: one for one in self.engines}


@asynccontextmanager
async def collecting(valkey, store):
    """A collector in this process; yields its admin address."""
    settings = Settings(valkey.url, "g", free_address(), interval_s=0.1)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.serve(settings, store, stop))
        try:
            yield settings.admin
        finally:
            stop.set()


@asynccontextmanager
async def a_process(valkey):
    """A collector in a process of its own; yields (its process, its admin address)."""
    admin = free_address()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc.collect", "--redis", valkey.url, "--group", "g"),
        *("--admin", admin, "--interval", "0.2"),
    )
    try:
        yield process, admin
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def got(admin, path):
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://{admin}{path}") as response:
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""


async def pods_of(admin):
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://{admin}/debug/state") as response:
                return {f"pod/{name}" for name in (await response.json())["pods"]}
        except aiohttp.ClientError:
            return set()


async def test_a_collector_states_what_it_sees_of_every_pod(valkey, store, open_store, publish, pods, until):
    live = Live(store)
    async with collecting(valkey, open_store()) as admin:
        await until(lambda: got(admin, "/healthz"))
        assert (await got(admin, "/readyz"))[0] in (0, 503)
        pods[0].lists("lora-a")
        await publish()

        async def seen():
            newest = await live.newest()
            return newest.keys() == NAMES and all(one.failing is None for one in newest.values())

        await until(seen)
        newest = await live.newest()
        assert newest["pod/default/p0"].adapters == ("lora-a",)
        assert newest["pod/default/p1"].block_size == 32
        assert (await got(admin, "/readyz"))[0] == 200
        assert f"kvoy_collector_pods {PODS}.0" in (await got(admin, "/metrics"))[1]

        pods[1].answers["/metrics"] = 500
        await until(lambda: said(live, "pod/default/p1", "/metrics answers 500"))


async def test_after_a_restart_of_the_store_everything_is_said_again(own_valkey, pods, until):
    store = Store.connect(own_valkey.url, "g")
    records = [a_route("r", a_rule("s"), model="m"), a_server("s")]
    records.append(a_pod("p", "s", ip="127.0.0.1", port=int(pods[0].address.partition(":")[2])))
    changes = tuple(Put(record) for record in records)
    await store.configuration.publish(Publication("epoch", 1, changes, whole=True))
    connection = Store.connect(own_valkey.url, "g")
    try:
        async with collecting(own_valkey, connection) as admin:
            await until(lambda: Live(store).newest())
            own_valkey.kill()
            await until(lambda: shows(admin, "kvoy_collector_leases_current 0.0"))
            assert await pods_of(admin) == set()
            assert (await got(admin, "/readyz"))[0] == 200

            own_valkey.start()
            await until(lambda: Live(store).newest())
            assert await pods_of(admin) == {"pod/default/p"}
    finally:
        await store.close()
        await connection.close()


async def said(live, endpoint, failing):
    return (await live.newest())[endpoint].failing == failing


async def test_placements_on_its_engines_become_snapshots(
    valkey, store, raw, open_store, publish, pods, until, monkeypatch
):
    monkeypatch.setattr(writer, "EVERY_S", 0.2)
    await publish()
    live = Live(store)
    async with collecting(valkey, open_store()):
        await until(lambda: live.newest())
        started = next(iter((await live.newest()).values())).started
        subject = Subject(Namespace.PREFIX, life("pod/default/p0", pods[0].address, started))
        told = frames.pack_all(frames.changes(subject.life, Namespace.PREFIX, Operation.ADD, [1, 2]))
        await store.streams.publish("worker", 1, told)

        async def written():
            raw_snapshot = (await store.snapshots.read([subject])).get(subject)
            return raw_snapshot is not None and snapshots.decode(raw_snapshot).young == frames.packed([1, 2])

        await until(written)
        await raw.flushall()
        await publish()
        await until(written)


async def ask(engine, prompt, rank):
    async with aiohttp.ClientSession() as session:
        body = {"model": "sim-model", "prompt": prompt, "max_tokens": 1}
        headers = {"x-data-parallel-rank": str(rank)}
        async with session.post(f"{engine.url}/v1/completions", json=body, headers=headers) as response:
            assert response.status == 200, await response.text()


async def test_blocks_that_an_engine_tells_of_reach_stream_and_snapshot_and_the_next_collector(
    valkey, store, raw, open_store, until, monkeypatch
):
    monkeypatch.setattr(writer, "EVERY_S", 0.1)
    options = EngineSettings(
        kv_events=0, kv_events_replay=0, data_parallel_size=2, prefill_tokens_per_s=1e9, inter_token_s=0
    )
    async with running(options) as engine:
        server = msgspec.structs.replace(a_server("s"), ranks=2)
        pod = a_pod("p", "s", ip="127.0.0.1", port=engine.port)
        records = (a_route("r", a_rule("s"), model="m"), server, pod)
        changes = tuple(Put(record) for record in records)
        await store.configuration.publish(Publication("epoch", 1, changes, whole=True))
        live = Live(store)
        async with collecting(valkey, open_store()):
            await until(lambda: both_followed(live))
            await ask(engine, "many words " * 100, rank=1)
            idle, busy = [(await live.newest())[f"pod/default/p#{rank}"].life for rank in (0, 1)]
            await until(lambda: told(store, busy))
            blocks = await told(store, busy)
            assert await told(store, idle) == set()
            await until(lambda: snapshot_of(store, busy, blocks))

            await raw.flushall()
            await store.configuration.publish(Publication("epoch", 2, changes, whole=True))
            await until(lambda: snapshot_of(store, busy, blocks))

        async with collecting(valkey, open_store()) as admin:
            await until(lambda: shows(admin, f"kvoy_collector_kv_blocks {len(blocks)}.0"))
            assert await shows(admin, "kvoy_collector_kv_clears_total 0.0")


async def both_followed(live):
    newest = await live.newest()
    return len(newest) == 2 and all(one.kv_events for one in newest.values())


async def told(store, life):
    """Blocks of a life in the exact index, as the stream tells."""
    found, _ = await store.streams.between("0-0", "+", 1000)
    about = [f for entry in found for f in frames.unpack(entry.frames) if f.life == life]
    added = [f for f in about if f.operation == Operation.ADD and f.namespace == Namespace.KV]
    return {number for frame in added for number in frame.numbers()}


async def snapshot_of(store, life, blocks):
    stored = await store.snapshots.read([Subject(Namespace.KV, life)])
    return [set(frames.numbers(snapshots.decode(raw).own)) for raw in stored.values()] == [blocks]


async def shows(admin, series):
    return series in (await got(admin, "/metrics"))[1]


@pytest.mark.parametrize(("ask_for", "end"), [("/pause", "/resume"), ("/sleep", "/wake_up")])
async def test_an_engine_that_sleeps_or_is_paused_is_stated_asleep(
    valkey, store, open_store, until, ask_for, end
):
    async with running(EngineSettings()) as engine:
        pod = a_pod("p", "s", ip="127.0.0.1", port=engine.port)
        records = (a_route("r", a_rule("s"), model="m"), a_server("s"), pod)
        changes = tuple(Put(record) for record in records)
        await store.configuration.publish(Publication("epoch", 1, changes, whole=True))
        live = Live(store)
        async with collecting(valkey, open_store()), aiohttp.ClientSession() as session:
            for path, asleep in ((ask_for, True), (end, False)):
                async with session.post(engine.url + path) as response:
                    assert response.status == 200
                await until(lambda asleep=asleep: is_asleep(live, asleep))


async def is_asleep(live, asleep):
    newest = await live.newest()
    return "pod/default/p" in newest and newest["pod/default/p"].asleep is asleep


async def test_two_share_and_one_that_stands_still_or_is_killed_is_replaced_within_five_seconds(
    valkey, store, publish, until
):
    await publish()
    async with a_process(valkey) as (first, one), a_process(valkey) as (second, other):
        await until(lambda: they_share(one, other))

        first.send_signal(signal.SIGSTOP)
        assert await seconds(until, lambda: owns_all(other)) < 5
        first.send_signal(signal.SIGCONT)
        async with asyncio.timeout(20):
            while not await they_share(one, other):
                assert not await twice(one, other)

        first.kill()
        assert await seconds(until, lambda: owns_all(other)) < 5
        live = Live(store)
        await live.read()
        live.engines.clear()
        await until(lambda: all_are_seen(live))

        second.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(second.wait(), 20) == 0
    assert await store.leases.claim("collector", "somebody", NAMES, 1000) == NAMES


async def seconds(until, condition):
    """How long it takes until it holds."""
    begun = time.monotonic()
    await until(condition)
    return time.monotonic() - begun


async def they_share(one, other):
    mine, yours = await pods_of(one), await pods_of(other)
    return mine and yours and not mine & yours and mine | yours == NAMES


async def twice(one, other):
    """Pods that both say they own at one instant: the first one before and after the other was asked."""
    before, yours = await pods_of(one), await pods_of(other)
    return before & yours & await pods_of(one)


async def owns_all(admin):
    return await pods_of(admin) == NAMES


async def all_are_seen(live):
    return (await live.newest()).keys() == NAMES
