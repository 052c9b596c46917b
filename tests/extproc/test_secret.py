import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from extproc import secret as module
from extproc.secret import Secret
from extproc.state import keys
from extproc.state.store import Store


@asynccontextmanager
async def running(secret: Secret) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(secret.run())
        try:
            yield
        finally:
            loop.cancel()


async def test_all_processes_learn_the_same_one(open_store: Callable[[], Store]) -> None:
    one, other = Secret(open_store()), Secret(open_store())
    async with asyncio.timeout(20), running(one), running(other):
        assert await one.known() == await other.known()
        assert len(one.value) == 16


def test_nobody_hashes_before_it_is_known(store: Store) -> None:
    with pytest.raises(LookupError):
        _ = Secret(store).value


async def test_an_emptied_store_gets_it_back(
    store: Store, raw: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RENEW_S", 0.01)
    secret = Secret(store)
    async with asyncio.timeout(20), running(secret):
        before = await secret.known()
        await raw.flushall()
        while await raw.get(keys.secret("g")) != before:
            await asyncio.sleep(0.01)


async def test_a_process_keeps_its_own_and_says_so(
    store: Store, raw: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RENEW_S", 0.01)
    secret = Secret(store)
    async with asyncio.timeout(20), running(secret):
        before = await secret.known()
        await raw.set(keys.secret("g"), b"x" * 16)
        while "another secret" not in caplog.text:
            await asyncio.sleep(0.01)
    assert secret.value == before
