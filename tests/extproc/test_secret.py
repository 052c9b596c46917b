import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from extproc import secret as module
from extproc.secret import Secret
from extproc.state import keys
from extproc.state.records import Publication
from extproc.state.store import Store


@asynccontextmanager
async def running(secret: Secret) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(secret.run())
        try:
            yield
        finally:
            loop.cancel()


async def publish(store: Store) -> None:
    assert await store.configuration.publish(Publication("epoch", 1, (), whole=True))


async def test_all_processes_learn_the_one_that_the_first_configuration_made(
    store: Store, open_store: Callable[[], Store]
) -> None:
    one, other = Secret(open_store()), Secret(open_store())
    async with asyncio.timeout(20), running(one), running(other):
        await publish(store)
        assert await one.known() == await other.known() == await store.secret.read()
        assert len(one.value) == 16


async def test_nobody_makes_one_while_there_is_no_configuration(store: Store, raw: Redis) -> None:
    secret = Secret(store)
    async with running(secret):
        await asyncio.sleep(0.2)
    assert await raw.get(keys.secret("g")) is None
    with pytest.raises(LookupError):
        _ = secret.value


async def test_a_controller_gives_an_emptied_store_the_secret_of_before(store: Store, raw: Redis) -> None:
    await publish(store)
    before = await store.secret.read()
    await raw.flushall()
    await publish(store)

    assert await store.secret.read() == before is not None


def test_nobody_hashes_before_it_is_known(store: Store) -> None:
    with pytest.raises(LookupError):
        _ = Secret(store).value


async def test_an_emptied_store_gets_it_back(
    store: Store, raw: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RENEW_S", 0.01)
    await publish(store)
    secret = Secret(store)
    async with asyncio.timeout(20), running(secret):
        before = await secret.known()
        await raw.flushall()
        while await raw.get(keys.secret("g")) != before:
            await asyncio.sleep(0.01)


async def test_another_secret_is_taken_over(
    store: Store, raw: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RENEW_S", 0.01)
    await publish(store)
    secret = Secret(store)
    async with asyncio.timeout(20), running(secret):
        await secret.known()
        await raw.set(keys.secret("g"), b"x" * 16)
        while secret.value != b"x" * 16:
            await asyncio.sleep(0.01)
    assert "another secret" in caplog.text
