"""Parts of kvoy die, hang and come back; clients see nothing of it."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.envoy.world import GROUP, World, a_model_route, a_model_server, to, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def load(world: World, connections: int = 8) -> AsyncIterator[Counter[str]]:
    """Closed-loop load for the length of the block; yields how requests ended."""
    ends: Counter[str] = Counter()
    over = False

    async def client() -> None:
        while not over:
            try:
                answer = await world.chat("deepseek-r1", max_tokens=2)
                ends[str(answer.status) if answer.status == 200 else f"{answer.status} {answer.body!r}"] += 1
            except aiohttp.ClientError as error:
                ends[repr(error)] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(client())
        yield ends
        over = True


async def enough(ends: Counter[str], more: int = 100) -> None:
    """Let the load go on until this many further requests have ended."""
    target = ends.total() + more

    async def reached() -> bool:
        return ends.total() >= target

    await until(reached)


async def test_kill_9_of_one_of_two_workers_loses_no_request(world: World) -> None:
    async with load(world) as ends:
        await enough(ends)
        for name in ("extproc-0", "extproc-1", "extproc-0"):
            await world.restart_worker(name, signal.SIGKILL)
            await enough(ends)

    assert set(ends) == {"200"}
    await until(world.idle)


async def test_a_worker_that_hangs_loses_no_request(world: World) -> None:
    (worker,) = world.workers("extproc-0")
    async with load(world, connections=4) as ends:
        await enough(ends, 20)
        os.kill(worker, signal.SIGSTOP)
        try:
            await enough(ends, 20)
        finally:
            os.kill(worker, signal.SIGCONT)
        await enough(ends, 20)

    assert set(ends) == {"200"}
    await until(world.idle)


async def lose_redis(world: World) -> int:
    """Kill Valkey, which keeps nothing; the generation before, which the next publication will exceed."""
    before = await world.generation()
    (valkey,) = world.stack.pids("valkey-server")
    os.kill(valkey, signal.SIGKILL)
    return before


async def test_redis_stopped_and_started_under_load_is_not_noticed(world: World) -> None:
    async with load(world) as ends:
        await enough(ends)
        for _ in range(2):
            before = await lose_redis(world)
            await enough(ends)
            await world.settled(before)
            await enough(ends)

    assert set(ends) == {"200"}
    await until(world.idle)


async def test_configuration_flows_again_after_redis_came_back_empty(world: World) -> None:
    before = await lose_redis(world)
    await world.settled(before)

    async with world.extra(a_model_route("after", "after-restart", to("big"))):
        assert (await world.chat("after-restart")).served_by == "big"


async def test_a_controller_that_dies_is_replaced_and_drops_nothing(world: World) -> None:
    async with load(world, connections=4) as ends:
        (controller,) = [pid for pid, command in world.stack.processes().items() if " controller " in command]
        os.kill(controller, signal.SIGKILL)
        await enough(ends)
        async with world.extra(a_model_route("after", "after-controller", to("big"))):
            await enough(ends, 20)
            assert (await world.chat("after-controller")).served_by == "big"

    assert set(ends) == {"200"}


async def test_requests_that_died_with_envoy_are_not_counted_for_ever(world: World) -> None:
    async def doomed() -> None:
        with pytest.raises(aiohttp.ClientError):
            await world.chat("deepseek-r1", stream=True, max_tokens=10_000)

    async with asyncio.TaskGroup() as tasks:
        await world.served(10, "deepseek-r1")
        for _ in range(10):
            tasks.create_task(doomed())
        await until(lambda: holds(world, 10))
        (envoy,) = world.stack.pids("--disable-hot-restart")
        os.kill(envoy, signal.SIGKILL)

    await until(world.idle)
    await until(lambda: serving(world))


async def holds(world: World, count: int) -> bool:
    return await world.in_flight() == count


async def serving(world: World) -> bool:
    try:
        return (await world.chat("deepseek-r1")).status == 200
    except aiohttp.ClientError:
        return False


async def test_edits_under_load_drop_no_request(world: World) -> None:
    async with load(world) as ends:
        for turn in range(8):
            async with world.extra(a_model_route(f"edit-{turn}", f"edit-{turn}", to("big"))):
                await enough(ends, 20)

    assert set(ends) == {"200"}


async def test_a_bad_edit_keeps_the_last_good_configuration_and_says_why(world: World) -> None:
    before = await world.generation()
    broken = world.folder / "broken.yaml"
    broken.write_text(f"apiVersion: {GROUP}\nkind: ModelRoute\nmetadata: {{name: x}}\nspec: {{}}\n")
    try:
        await until(lambda: said(world, "broken.yaml"))
        assert await world.generation() == before
        assert (await world.chat("deepseek-r1")).status == 200
    finally:
        broken.unlink()


async def said(world: World, text: str) -> bool:
    return text in world.stack.log


async def test_a_configuration_that_envoy_refuses_changes_nothing_and_is_named(world: World) -> None:
    before = await world.generation()
    annotations = {"kvoy.io/tls-ca-file": "/nowhere/ca.pem"}
    world.write(
        "refused.yaml",
        a_model_route("refused", "refused", to("refused")),
        a_model_server("refused", protocol="https", annotations=annotations),
    )
    try:
        await until(lambda: said(world, f"Envoy refuses the new configuration: generation {before} stays"))
        assert "/nowhere/ca.pem" in world.stack.log
        assert await world.generation() == before
        assert (await world.chat("refused")).status == 404
        assert (await world.chat("deepseek-r1")).status == 200
    finally:
        (world.folder / "refused.yaml").unlink()
    async with world.extra(a_model_route("after", "after-refusal", to("big"))):
        assert (await world.chat("after-refusal")).served_by == "big"
