import asyncio
import time
from array import array

import pytest

from benchmarks.engine.batch import Job
from benchmarks.engine.families import Families
from benchmarks.engine.ranks import Ranks
from benchmarks.engine.runtime import Clock, Runtime, Work
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.counters import TransferCounters
from benchmarks.engine.transfer.dock import Dock
from benchmarks.engine.transfer.part import Part
from benchmarks.engine.transfer.shelf import Kept


def a_dock(clock: Clock = time.monotonic) -> tuple[Dock, Runtime]:
    settings = EngineSettings(connector="nixl", prefill_tokens_per_s=float("inf"), inter_token_s=0.0)
    runtime = Ranks(settings, clock, time.time).runtimes[0]
    return Dock(settings, runtime, TransferCounters(Families(), settings, runtime.batch), clock), runtime


async def compute(dock: Dock, runtime: Runtime, key: str, seconds: float = 30.0) -> None:
    keep = dock.keeper(key, seconds)
    with runtime.enter([Work(array("I", [1] * 40), array("I", [0]), "length", 1, keep=keep)]) as (run,):
        await runtime.wait(run)


async def test_blocks_are_held_from_the_prefill_to_the_end_of_the_transfer() -> None:
    dock, runtime = a_dock()
    await compute(dock, runtime, "a")
    assert (dock.leases, dock.sending, runtime.batch.blocks.used) == (1, 0, 3)
    kept = await dock.take("a", waits=False)
    assert (dock.leases, dock.sending, dock.served) == (1, 1, 0)
    dock.sent(kept, whole=True)
    assert (dock.leases, dock.served, runtime.batch.blocks.used, kept.gone.is_set()) == (0, 1, 0, True)
    assert await dock.take("a", waits=False) is None


async def test_a_transfer_is_not_cut_by_the_end_of_its_lease() -> None:
    now = 0.0
    dock, runtime = a_dock(lambda: now)
    await compute(dock, runtime, "a")
    kept = await dock.take("a", waits=False)
    now = 31.0
    assert (dock.leases, runtime.batch.blocks.used) == (1, 3)
    dock.sent(kept, whole=True)
    assert dock.leases == 0


async def test_a_lease_ends_in_time_and_by_itself(until) -> None:
    now = 0.0
    dock, runtime = a_dock(lambda: now)
    await compute(dock, runtime, "a")
    now = 30.0
    assert (dock.leases, runtime.batch.blocks.used) == (0, 0)
    dock, runtime = a_dock()
    await compute(dock, runtime, "a", seconds=0.02)
    await until(lambda: runtime.batch.blocks.used == 0)


def a_kept(dock: Dock, runtime: Runtime) -> Kept:
    """Blocks given away in this turn of the loop."""
    prompt = array("I", [1] * 40)
    batch = runtime.batch
    batch.submit(Job(99, prompt, array("I", [0])), 0.0)
    (prefilled,) = batch.advance(float("inf"))
    return dock.put("a", batch.keep(99, 0.0, answered=1), prefilled, 30.0)


async def test_who_waits_gets_the_blocks_as_soon_as_they_are_there() -> None:
    dock, runtime = a_dock()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(dock.take("a", waits=True))
        await asyncio.sleep(0)
        assert dock.awaited == 1
        await compute(dock, runtime, "b")
        await compute(dock, runtime, "a")
        kept = await waiting
    assert (kept.key, dock.awaited, dock.sending, dock.leases) == ("a", 0, 1, 2)


@pytest.mark.parametrize("computed", [False, True])
async def test_who_leaves_while_waiting_wants_no_blocks(computed: bool) -> None:
    dock, runtime = a_dock()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(dock.take("a", waits=True))
        await asyncio.sleep(0)
        if computed:
            kept = a_kept(dock, runtime)
            assert (kept.key, waiting.done()) == ("a", False)  # given, but not yet received
        waiting.cancel()
    if not computed:
        await compute(dock, runtime, "a")
    assert (dock.leases, dock.awaited, dock.served, runtime.batch.blocks.used) == (0, 0, 0, 0)


async def test_another_one_may_come_after_the_first_has_left() -> None:
    dock, runtime = a_dock()
    dock.release("a")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(dock.take("a", waits=True))
        await asyncio.sleep(0)
        await compute(dock, runtime, "a")
        assert (await waiting).key == "a"


@pytest.mark.parametrize("before", [False, True])
async def test_released_blocks_are_free_whenever_they_are_computed(before: bool) -> None:
    dock, runtime = a_dock()
    if before:
        dock.release("a")
    await compute(dock, runtime, "a")
    if not before:
        dock.release("a")
    assert (dock.leases, runtime.batch.blocks.used) == (0, 0)


async def test_requests_whose_prompt_is_for_others_are_counted_while_they_are_open() -> None:
    dock, _ = a_dock()
    with dock.open(Part([], is_prefill=True)), dock.open(Part([])):
        assert dock.prefills == 1
    assert dock.prefills == 0
