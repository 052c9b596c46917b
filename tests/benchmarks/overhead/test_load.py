import asyncio
from collections.abc import AsyncIterator

import pytest

from benchmarks.overhead.backend import ANSWER, Engine
from benchmarks.overhead.load import BadAnswer, closed_loop, fixed_rate


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("size", [10, 400_000])
async def test_a_closed_loop_measures_every_request(port: int, size: int) -> None:
    tally = await closed_loop("127.0.0.1", port, b"x" * size, connections=3, seconds=0.2)

    assert len(tally.latencies) >= 3
    assert tally.rate == len(tally.latencies) / tally.seconds
    assert all(latency > 0 for latency in tally.latencies)


async def test_a_fixed_rate_sends_exactly_what_it_promised(port: int) -> None:
    tally = await fixed_rate("127.0.0.1", port, b"body", rate=200, seconds=0.5)

    assert len(tally.latencies) == 100


async def test_the_lowest_rate_is_one_request(port: int) -> None:
    async with asyncio.timeout(20):
        tally = await fixed_rate("127.0.0.1", port, b"body", rate=1, seconds=0.5)

    assert len(tally.latencies) == 1


async def test_a_bad_answer_ends_the_load() -> None:
    class Refusing(Engine):
        def data_received(self, _: bytes) -> None:
            self._transport.write(ANSWER.replace(b"200 OK", b"503 No"))

    server = await asyncio.get_running_loop().create_server(Refusing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(BadAnswer, match="503"):
            await closed_loop("127.0.0.1", port, b"body", connections=1, seconds=5)
        with pytest.raises(BadAnswer, match="503"):
            await fixed_rate("127.0.0.1", port, b"body", rate=10, seconds=5)
