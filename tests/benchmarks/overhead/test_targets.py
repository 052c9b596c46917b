from benchmarks.overhead.__main__ import chat_body
from benchmarks.overhead.load import closed_loop
from benchmarks.overhead.targets import Target, an_engine, envoy_alone, envoy_with_kvoy


async def carried(target: Target) -> int:
    tally = await closed_loop(target.host, target.port, chat_body(1000), connections=2, seconds=0.3)
    return len(tally.latencies)


async def test_envoy_alone_carries_requests_to_the_engine() -> None:
    async with an_engine() as engine, envoy_alone(engine) as target:
        assert await carried(target) > 0
        assert len(target.envoy_pids) == 1
        assert target.service_pids == ()


async def test_envoy_with_kvoy_carries_requests_to_the_engine() -> None:
    async with an_engine() as engine, envoy_with_kvoy(engine, workers=1) as target:
        assert await carried(target) > 0
        assert len(target.envoy_pids) == 1
        assert len(target.service_pids) == 1


def test_bodies_have_the_size_asked_for() -> None:
    assert [len(chat_body(size)) for size in (120, 1000, 32_000)] == [120, 1000, 32_000]
