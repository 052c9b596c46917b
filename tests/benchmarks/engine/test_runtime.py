import asyncio
import time
from array import array

import pytest

from benchmarks.engine.batch import QueueFullError
from benchmarks.engine.events import Event
from benchmarks.engine.models import Adapter
from benchmarks.engine.ranks import Ranks
from benchmarks.engine.runtime import Clock, Run, Runtime, Work
from benchmarks.engine.settings import EngineSettings


def a_runtime(clock: Clock = time.monotonic, **knobs: object) -> Runtime:
    fast = {"inter_token_s": 0.0, "prefill_tokens_per_s": float("inf"), "max_running": 2, "max_waiting": 1}
    return Ranks(EngineSettings(**{**fast, **knobs}), clock, time.time).runtimes[0]


def some_work(output: int = 5, prompt: int = 8, adapter: Adapter | None = None) -> Work:
    return Work(array("I", [1] * prompt), array("I", range(output)), "length", output, adapter)


async def collected(runtime: Runtime, run: Run) -> list[int]:
    return [token async for burst in runtime.tokens(run) for token in burst]


def counted(runtime: Runtime, series: str) -> float:
    lines = runtime.metrics.families.render().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series))


@pytest.mark.parametrize("pace", [0.0, 0.002])
async def test_every_token_comes_once_and_in_order(pace: float) -> None:
    runtime = a_runtime(inter_token_s=pace)
    with runtime.enter([some_work(7)]) as (run,):
        assert await collected(runtime, run) == [0, 1, 2, 3, 4, 5, 6]
    assert (runtime.batch.running, runtime.batch.blocks.used) == (0, 0)
    assert counted(runtime, "vllm:generation_tokens_total") == 7
    assert counted(runtime, "vllm:inter_token_latency_seconds_count") == 6
    assert counted(runtime, "vllm:time_to_first_token_seconds_count") == 1


async def test_a_paced_answer_comes_token_by_token() -> None:
    runtime = a_runtime(clock=lambda: 5.0, inter_token_s=0.001)
    with runtime.enter([some_work(5)]) as (run,):
        assert [len(burst) async for burst in runtime.tokens(run)] == [1, 1, 1, 1, 1]


async def test_a_slow_reader_gets_what_is_due_at_once() -> None:
    now = 0.0
    runtime = a_runtime(clock=lambda: now, inter_token_s=0.25)
    with runtime.enter([some_work(12)]) as (run,):
        sizes = []
        async for burst in runtime.tokens(run):
            sizes.append(len(burst))
            now += 1.0
    assert sizes == [1, 4, 4, 3]
    assert counted(runtime, "vllm:inter_token_latency_seconds_sum") == pytest.approx(3.0)


async def test_a_prompt_slows_the_other_answers_down() -> None:
    now = 0.0
    runtime = a_runtime(
        clock=lambda: now, inter_token_s=250.0, prefill_tokens_per_s=0.001, prefill_chunk_tokens=1
    )
    with runtime.enter([some_work(9, prompt=1)]) as (run,):
        now = 1000.0
        runtime.resume()
        answer = runtime.tokens(run)
        assert len(await anext(answer)) == 1
        with runtime.enter([some_work()]):
            now += 2.4 * 1250.0
            assert len(await anext(answer)) == 2
        now += 2.4 * 250.0
        assert len(await anext(answer)) == 2
        await answer.aclose()
    assert counted(runtime, "vllm:inter_token_latency_seconds_sum") == pytest.approx(3600.0)


async def test_answers_slow_each_other_down() -> None:
    now = 0.0
    runtime = a_runtime(clock=lambda: now, inter_token_s=1.0, inter_token_s_per_answer=2.0)
    with runtime.enter([some_work(9), some_work(9)]) as (run, _):
        answer = runtime.tokens(run)
        assert len(await anext(answer)) == 1
        now += 7.0
        assert len(await anext(answer)) == 2
        await answer.aclose()


async def test_an_answer_hears_of_it_when_the_prompt_that_slows_it_down_is_gone() -> None:
    ahead = 0.0
    runtime = a_runtime(
        clock=lambda: time.monotonic() + ahead,
        inter_token_s=0.001,
        prefill_tokens_per_s=0.001,
        prefill_chunk_tokens=1,
    )
    with runtime.enter([some_work(3, prompt=1)]) as (run,):
        ahead = 1000.0
        runtime.resume()
        async with asyncio.TaskGroup() as tasks:
            with runtime.enter([some_work()]):
                reading = tasks.create_task(collected(runtime, run))
                while run.sent < 1:
                    await asyncio.sleep(0)
    assert reading.result() == [0, 1, 2]


async def test_waiting_counts_the_same_as_streaming() -> None:
    runtime = a_runtime(inter_token_s=0.001)
    with runtime.enter([some_work(4)]) as (run,):
        await runtime.wait(run)
    assert counted(runtime, "vllm:generation_tokens_total") == 4
    assert counted(runtime, "vllm:inter_token_latency_seconds_count") == 3
    assert counted(runtime, 'vllm:request_success_total{engine="0",finished_reason="length"') == 1


async def test_waiting_for_some_tokens_leaves_the_request_running() -> None:
    runtime = a_runtime()
    with runtime.enter([some_work(4)]) as (run,):
        await runtime.wait(run, stop_after=2)
        assert (run.sent, run.ended, runtime.batch.running) == (2, False, 1)
        await runtime.wait(run)
    assert counted(runtime, "vllm:generation_tokens_total") == 4


async def test_work_without_an_answer_ends_with_its_prefill() -> None:
    runtime = a_runtime()
    with runtime.enter([some_work(0)]) as (run,):
        await runtime.wait(run)
    assert run.ended
    assert counted(runtime, "vllm:generation_tokens_total") == 0
    assert counted(runtime, "vllm:prompt_tokens_total") == 8


async def test_leaving_early_aborts_and_frees_everything() -> None:
    runtime = a_runtime(prefill_tokens_per_s=0.001)
    with runtime.enter([some_work(), some_work(), some_work()]) as runs:
        assert (runtime.batch.running, runtime.batch.waiting) == (2, 1)
    assert all(run.prefilled.cancelled() for run in runs)
    assert (runtime.batch.running, runtime.batch.waiting, runtime.batch.blocks.used) == (0, 0, 0)
    assert counted(runtime, "vllm:request_success_total{") == 0
    runtime.close()


async def test_a_full_queue_takes_none_of_a_request() -> None:
    runtime = a_runtime(prefill_tokens_per_s=0.001)
    with pytest.raises(QueueFullError), runtime.enter([some_work()] * 4):
        pytest.fail("there is no room for four")
    assert (runtime.batch.running, runtime.batch.waiting) == (0, 0)
    assert counted(runtime, "vllm:admission_rejections_total{") == 1


async def test_a_request_larger_than_the_batch_runs_in_turns() -> None:
    runtime = a_runtime(max_running=1, max_waiting=9)
    with runtime.enter([some_work()] * 6) as runs:
        for run in runs:
            await runtime.wait(run)
    assert counted(runtime, 'vllm:request_success_total{engine="0",finished_reason="length"') == 6


async def test_cancelling_the_reader_frees_the_request() -> None:
    runtime = a_runtime(inter_token_s=100.0)
    entered = asyncio.Event()

    async def read() -> None:
        with runtime.enter([some_work()]) as (run,):
            async for _ in runtime.tokens(run):
                entered.set()

    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(read())
        await entered.wait()
        reader.cancel()
    assert (runtime.batch.running, runtime.batch.blocks.used) == (0, 0)


async def test_adapters_in_use_are_told_to_the_metrics() -> None:
    runtime = a_runtime(loras=("sql",))
    with runtime.enter([some_work(adapter=Adapter("sql", 1))]) as (run,):
        await runtime.wait(run)
    text = runtime.metrics.families.render().decode()
    assert 'running_lora_adapters="sql",waiting_lora_adapters="sql"' in text


def a_told_runtime(clock: Clock = time.monotonic, **knobs: object) -> tuple[Runtime, list[list[Event]]]:
    published: list[list[Event]] = []
    fast = {"inter_token_s": 0.0, "prefill_tokens_per_s": float("inf"), "block_size": 4, "max_model_len": 32}
    settings = EngineSettings(**{**fast, **knobs})
    return Ranks(settings, clock, time.time, [published.append]).runtimes[0], published


@pytest.mark.parametrize("streamed", [False, True])
async def test_blocks_of_an_answer_are_published_as_they_fill(streamed: bool) -> None:
    runtime, published = a_told_runtime(inter_token_s=0.002)
    counts = []
    with runtime.enter([some_work(12, prompt=10)]) as (run,):
        await run.prefilled
        counts.append(len(published))
        if streamed:
            async for _ in runtime.tokens(run):
                counts.append(len(published))
        else:
            await runtime.wait(run)
    assert counts[0] == 1
    assert [len(event.block_hashes) for batch in published for event in batch] == [2, 1, 1, 1]
    assert [event.token_ids for batch in published[1:] for event in batch][-1] == [6, 7, 8, 9]
    if streamed:
        assert [len(batch) for batch in published] == [1, 1, 1, 1]


async def test_a_wait_for_a_whole_answer_publishes_in_between() -> None:
    now = 0.0
    runtime, published = a_told_runtime(clock=lambda: now, inter_token_s=1.0)
    with runtime.enter([some_work(12, prompt=8)]) as (run,):
        await run.prefilled
        now = 5.5  # six of the twelve tokens are due
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(runtime.wait(run))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [len(batch) for batch in published] == [1, 1]
            waiting.cancel()
    assert run.sent == 5


async def test_nothing_is_published_before_a_step_ends() -> None:
    now = 0.0
    runtime, published = a_told_runtime(clock=lambda: now, num_blocks=8, prefill_tokens_per_s=20.0)
    for token, waited in ((1, 1.0), (2, 2.0)):
        work = Work(array("I", [token] * 20), array("I", [0, 0]), "length", 2)
        with runtime.enter([work]) as (run,):
            assert len(published) == token - 1
            now = waited
            await runtime.wait(run)
    assert len(published) == 2


async def test_a_block_that_had_to_go_is_published_with_what_took_its_place() -> None:
    runtime, published = a_told_runtime(num_blocks=8)
    for token in (1, 2):
        work = Work(array("I", [token] * 20), array("I", [0, 0]), "length", 2)
        with runtime.enter([work]) as (run,):
            await runtime.wait(run)
    kinds = [[type(event).__name__ for event in batch] for batch in published]
    assert kinds == [["BlockStored"], [*["BlockRemoved"] * 3, "BlockStored"]]


class Elsewhere:
    """Another engine, which gives the whole prompt when told to."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.asked: list[int] = []
        self.left = 0

    async def fetch(self, lacking: int) -> int:
        self.asked.append(lacking)
        await self.ready.wait()
        return lacking

    def leave(self) -> None:
        self.left += 1


def remote_work(origin: Elsewhere) -> Work:
    return Work(array("I", [1] * 8), array("I", range(5)), "length", 5, origin=origin)


async def test_work_from_elsewhere_runs_when_its_prompt_has_come() -> None:
    runtime, origin = a_runtime(prefill_tokens_per_s=0.001, connector="nixl"), Elsewhere()
    async with asyncio.TaskGroup() as tasks:
        with runtime.enter([remote_work(origin)]) as (run,):
            waiting = tasks.create_task(runtime.wait(run))
            await asyncio.sleep(0)
            assert (origin.asked, runtime.batch.running, runtime.batch.waiting) == ([8], 0, 1)
            origin.ready.set()
            await waiting
            assert await runtime.computed(run) == run.prefilled.result()
    assert (origin.asked, origin.left) == ([8], 1)
    assert counted(runtime, "vllm:external_prefix_cache_hits_total") == 8
    assert counted(runtime, "vllm:prefix_cache_hits_total") == 0


async def test_leaving_tells_elsewhere() -> None:
    runtime, origin = a_runtime(), Elsewhere()
    with runtime.enter([remote_work(origin)]):
        assert runtime.batch.waiting == 1
    assert (origin.asked, origin.left) == ([], 1)
    assert (runtime.batch.waiting, runtime.batch.blocks.used) == (0, 0)


async def test_who_finds_the_queue_full_tells_elsewhere() -> None:
    runtime, origin = a_runtime(max_running=1, max_waiting=0, prefill_tokens_per_s=0.001), Elsewhere()
    with runtime.enter([some_work()]):
        with pytest.raises(QueueFullError), runtime.enter([remote_work(origin)]):
            pytest.fail("there is no room")
        assert origin.left == 1
    runtime.close()


async def test_kept_blocks_are_handed_over_when_the_work_ends() -> None:
    runtime, kept = a_runtime(), []
    work = Work(array("I", [1] * 40), array("I", [0]), "length", 1, keep=lambda *given: kept.append(given))
    with runtime.enter([work]) as (run,):
        await runtime.wait(run)
    ((lease, prefilled),) = kept
    assert (prefilled, runtime.batch.running, runtime.batch.blocks.used) == (run.prefilled.result(), 0, 3)
    runtime.drop(lease)
    assert runtime.batch.blocks.used == 0


async def test_aborted_work_keeps_nothing() -> None:
    runtime, kept = a_runtime(prefill_tokens_per_s=0.001), []
    work = Work(array("I", [1] * 40), array("I", [0]), "length", 1, keep=lambda *given: kept.append(given))
    with runtime.enter([work]):
        assert runtime.batch.running == 1
    assert (kept, runtime.batch.blocks.used) == ([], 0)
    runtime.close()
