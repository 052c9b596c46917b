import re
import time
from array import array

from benchmarks.engine.events import AllBlocksCleared, Event
from benchmarks.engine.ranks import Ranks
from benchmarks.engine.runtime import Run, Runtime, Work
from benchmarks.engine.settings import EngineSettings


def some_ranks(size: int = 2, **knobs: object) -> Ranks:
    fast = {"inter_token_s": 0.0, "prefill_tokens_per_s": float("inf"), "data_parallel_size": size}
    return Ranks(EngineSettings(**{**fast, **knobs}), time.monotonic, time.time)


def some_work() -> Work:
    return Work(array("I", [1] * 40), array("I", range(5)), "length", 5)


async def served(runtime: Runtime) -> Run:
    with runtime.enter([some_work()]) as (run,):
        await runtime.wait(run)
    return run


def exposed(ranks: Ranks, family: str) -> dict[str, float]:
    """Values of a family by rank."""
    found = re.findall(rf'^{family}{{engine="(\d)",[^}}]*}} (\S+)$', ranks.render().decode(), re.MULTILINE)
    return {rank: float(value) for rank, value in found}


async def test_each_rank_has_its_own_cache_and_counts_for_itself() -> None:
    ranks = some_ranks()
    first, second = ranks.runtimes
    cached = [(await served(rank)).prefilled.result().cached for rank in (first, first, second)]
    assert cached == [0, 32, 0]
    assert exposed(ranks, "vllm:prefix_cache_hits_total") == {"0": 32, "1": 0}
    assert exposed(ranks, "vllm:prefix_cache_queries_total") == {"0": 80, "1": 40}


async def test_the_least_loaded_is_chosen_and_the_first_of_equals() -> None:
    ranks = some_ranks(3, prefill_tokens_per_s=1.0)
    chosen = []
    with ranks.least_loaded().enter([some_work()]), ranks.least_loaded().enter([some_work()] * 2):
        chosen.append(ranks.least_loaded().rank)
        with ranks.least_loaded().enter([some_work()]):
            chosen.append(ranks.least_loaded().rank)
        assert (ranks.running, ranks.waiting) == (3, 0)
    ranks.close()
    assert chosen == [2, 0]
    assert (ranks.running, ranks.kv_usage) == (0, 0.0)


async def test_usage_is_the_share_of_all_blocks() -> None:
    ranks = some_ranks(num_blocks=10, max_model_len=160, prefill_tokens_per_s=1.0)
    with ranks.runtimes[1].enter([some_work()]):
        assert ranks.kv_usage == 3 / 20
    ranks.close()


async def test_a_paused_engine_lets_requests_wait_until_it_resumes() -> None:
    ranks = some_ranks()
    ranks.pause()
    with ranks.runtimes[1].enter([some_work()]) as (run,):
        assert (ranks.is_paused, ranks.running, ranks.waiting) == (True, 0, 1)
        assert exposed(ranks, "vllm:num_requests_waiting") == {"0": 0, "1": 1}
        ranks.resume()
        await ranks.runtimes[1].wait(run)
    assert not ranks.is_paused


async def test_sleep_pauses_forgets_what_is_cached_and_is_told() -> None:
    ranks = some_ranks()
    await served(ranks.runtimes[0])
    ranks.sleep(1)
    assert ranks.is_paused
    assert ranks.runtimes[0].batch.blocks.idle == 0
    assert 'engine="1",model_name="sim-model",sleep_state="weights_offloaded"} 1.0' in ranks.render().decode()
    with ranks.runtimes[0].enter([some_work()]) as (run,):
        assert not run.prefilled.done()
        ranks.wake_up()
        assert (await run.prefilled).cached == 0
    assert not ranks.is_paused
    assert ranks.render().decode().count('sleep_state="awake"} 1.0') == 2


async def test_a_light_sleep_keeps_what_is_cached() -> None:
    ranks = some_ranks()
    await served(ranks.runtimes[0])
    ranks.sleep(0)
    ranks.wake_up()
    assert (await served(ranks.runtimes[0])).prefilled.result().cached == 32


async def test_caches_are_cleared_on_the_ranks_that_run_nothing() -> None:
    ranks = some_ranks()
    for runtime in ranks.runtimes:
        await served(runtime)
    assert ranks.clear_caches()
    for runtime in ranks.runtimes:
        await served(runtime)
    with ranks.runtimes[0].enter([some_work()]):
        assert not ranks.clear_caches()
    assert [runtime.batch.blocks.idle > 0 for runtime in ranks.runtimes] == [True, False]


async def test_each_rank_publishes_for_itself_and_clearing_waits_for_the_next_step() -> None:
    published: list[tuple[int, list[str]]] = []

    def publisher(rank: int):
        def publish(events: list[Event]) -> None:
            published.append((rank, [type(event).__name__ for event in events]))

        return publish

    settings = EngineSettings(data_parallel_size=2, inter_token_s=0.0, prefill_tokens_per_s=float("inf"))
    ranks = Ranks(settings, time.monotonic, time.time, [publisher(0), publisher(1)])
    await served(ranks.runtimes[1])
    ranks.clear_caches()
    assert published == [(1, ["BlockStored"])]
    await served(ranks.runtimes[1])
    await served(ranks.runtimes[0])
    assert [name for _, name in published[1:]] == [[AllBlocksCleared.__name__, "BlockStored"]] * 2
    assert [rank for rank, _ in published] == [1, 1, 0]
