"""The shared state is lost, or whoever writes it dies, while clients work: they see nothing of it."""

import asyncio
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import aiohttp
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.envoy.steering import conversation, observed
from tests.envoy.world import (
    World,
    a_model_route,
    a_model_server,
    a_pod_manifest,
    a_world,
    engines,
    to,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS = 8
ENGINES = ("one", "two")
BLOCKS = "kvoy_cache_prefix_blocks"
SIM = ("--model", "sim", "--inter-token-s", "0.001", "--reply-tokens", "2", "--prefill-tokens-per-s", "1e6")
ROOMY = ("--num-blocks", "1000000")
"""A cache that nothing has to leave: what is evicted when depends on who heard of it when."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[World]:
    """Two engines, two workers."""
    async with AsyncExitStack() as resources:
        started = await engines(resources, *((name, *SIM, *ROOMY) for name in ENGINES))
        world = await resources.enter_async_context(
            a_world(
                servers=[a_model_server("sim", model="sim")],
                pods=[a_pod_manifest(engine.name, "sim", engine.port) for engine in started],
                routes=[a_model_route("sim", "sim", to("sim"))],
            )
        )
        world.engines = {engine.name: engine for engine in started}
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def world(stack: World) -> AsyncIterator[World]:
    """The stack with its engines observed; idle, connected and in agreement again afterwards."""
    await observed(stack, ENGINES)
    yield stack
    await until(stack.idle, within=30)
    await agreed(stack)


@asynccontextmanager
async def load(world: World) -> AsyncIterator[Counter[str]]:
    """Closed-loop clients for the length of the block; yields how their requests ended."""
    ends: Counter[str] = Counter()
    over = asyncio.Event()

    async def client(rng: Random) -> None:
        about = str(uuid.uuid4())
        while not over.is_set():
            if rng.random() < 0.2:
                about = str(uuid.uuid4())
            try:
                answer = await world.chat(
                    "sim", messages=conversation(about, str(rng.random())), max_tokens=2
                )
                ends[str(answer.status) if answer.status == 200 else f"{answer.status} {answer.body!r}"] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                ends[repr(error)] += 1
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as tasks:
        for at in range(CLIENTS):
            tasks.create_task(client(Random(at)))
        try:
            yield ends
        finally:
            over.set()


async def more(ends: Counter[str], requests: int = 60) -> None:
    """Let the load go on until so many further requests have ended."""
    target = ends.total() + requests

    async def reached() -> bool:
        return ends.total() >= target

    await until(reached, within=30)


async def blocks(world: World) -> list[float]:
    """Blocks in the prefix index of each worker that answers."""
    return [state["cache_entries"]["prefix"] for state in await world.states()]


async def agreed(world: World, least: int = 50) -> None:
    """Wait until both workers have the same index, which has so many blocks at least."""

    async def equal() -> bool:
        found = await blocks(world)
        return len(found) == 2 and found[0] == found[1] >= least

    await until(equal, within=45)


async def learnt(world: World, ends: Counter[str]) -> None:
    """Work until the workers know many prompts."""

    async def enough() -> bool:
        return min(await blocks(world)) >= 300

    await more(ends)
    await until(enough, within=30)


def valkey(world: World) -> int:
    (pid,) = world.stack.pids("valkey-server")
    return pid


async def flush(world: World) -> None:
    """FLUSHALL, by whoever can reach the store."""
    (command,) = (command for pid, command in world.stack.processes().items() if pid == valkey(world))
    async with Redis(unix_socket_path=command.rpartition("unixsocket:")[2]) as client:
        await client.flushall()


async def generation_after(world: World, before: int) -> None:
    """Wait until the controller has published anew and all workers have it."""
    await until(lambda: _later(world, before), within=30)


async def _later(world: World, before: int) -> bool:
    states = await world.states()
    return len(states) == 2 and all(state["generation"] > before for state in states)


@pytest.mark.parametrize("name", ["extproc-0", "extproc-1"])
async def test_a_worker_that_was_killed_has_the_full_index_before_it_decides(world: World, name: str) -> None:
    async with load(world) as ends:
        await learnt(world, ends)
    await until(world.idle)
    await agreed(world, least=300)
    (known, _) = await blocks(world)

    (old,) = world.workers(name)
    restarts = world.stack.log.count(f"{name} is ready again")
    os.kill(old, signal.SIGKILL)

    async def serving() -> bool:
        return world.stack.log.count(f"{name} is ready again") > restarts

    await until(serving)
    assert await blocks(world) == [known, known], "without a request in between"
    assert set(ends) == {"200"}, ends


async def test_flushall_is_survived(world: World) -> None:
    before = await world.generation()
    async with load(world) as ends:
        await learnt(world, ends)
        await flush(world)
        await more(ends)
        await generation_after(world, before)
        await more(ends)

    assert set(ends) == {"200"}, ends


async def test_kill_9_of_valkey_is_survived(world: World) -> None:
    before = await world.generation()
    async with load(world) as ends:
        await learnt(world, ends)
        os.kill(valkey(world), signal.SIGKILL)
        await more(ends)
        await generation_after(world, before)
        await more(ends)

    assert set(ends) == {"200"}, ends


async def test_10_seconds_without_valkey_are_survived(world: World) -> None:
    pid = valkey(world)
    async with load(world) as ends:
        await learnt(world, ends)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(10)
        finally:
            os.kill(pid, signal.SIGCONT)
        await more(ends)

    assert set(ends) == {"200"}, ends
    assert ends.total() > 200


async def test_a_collector_that_was_killed_is_replaced(world: World) -> None:
    (old,) = world.stack.pids("extproc.collect")
    async with load(world) as ends:
        await more(ends)
        os.kill(old, signal.SIGKILL)

        async def replaced() -> bool:
            return world.stack.pids("extproc.collect") not in ([], [old])

        await until(replaced)
        await observed(world, ENGINES)
        await more(ends)

    assert set(ends) == {"200"}, ends
