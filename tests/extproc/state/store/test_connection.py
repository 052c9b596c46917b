import asyncio
import os
import signal

import pytest
from redis.asyncio import Redis

from extproc.state.records import Publication, Put
from extproc.state.store import Store, StoreUnavailable, backoff_s
from extproc.testing import a_pod

POD = a_pod("p", "s")
NOW = 0
"""Of `tail`: do not wait."""


def whole(epoch: str, generation: int, *records: object) -> Publication:
    return Publication(epoch, generation, tuple(Put(r) for r in records), whole=True)


async def test_a_stopped_store_is_reported_and_found_again(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    try:
        await store.configuration.publish(whole("e", 1, POD))
        own_valkey.kill()
        for attempt in (
            store.configuration.load(),
            store.configuration.head(),
            store.configuration.tail("0-0", NOW),
            store.configuration.publish(whole("e", 1)),
        ):
            with pytest.raises(StoreUnavailable, match=own_valkey.url):
                await attempt
        own_valkey.start()

        assert await store.configuration.load() is None
        assert await store.configuration.publish(whole("f", 1, POD))
        assert len(await store.configuration.tail("0-0", NOW)) == 1
    finally:
        await store.close()


async def test_a_store_that_dies_under_a_blocked_read_ends_the_read(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_kill_when_blocked(own_valkey))
            with pytest.raises(StoreUnavailable):
                await store.configuration.tail("0-0", 60_000)
    finally:
        await store.close()


async def _kill_when_blocked(server: object) -> None:
    watcher = Redis.from_url(server.url)
    try:
        async with asyncio.timeout(20):
            while (await watcher.info("clients"))["blocked_clients"] == 0:
                await asyncio.sleep(0.01)
    finally:
        await watcher.aclose()
    server.kill()


async def test_a_store_that_hangs_is_given_up(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    await store.configuration.head()
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            answers = await asyncio.gather(
                store.configuration.head(), store.configuration.tail("0-0", 100), return_exceptions=True
            )
            assert [type(answer) for answer in answers] == [StoreUnavailable, StoreUnavailable]
        os.kill(own_valkey.pid, signal.SIGCONT)
        assert await store.configuration.head() is None
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
        await store.close()


async def test_an_address_without_a_store_is_reported_without_its_password() -> None:
    for url in ("unix://me:secret@/tmp/kvoy-nothing.sock", "redis://me:secret@127.0.0.1:1/0"):
        store = Store.connect(url, "g")
        with pytest.raises(StoreUnavailable) as error:
            await store.configuration.head()
        await store.close()
        assert "secret" not in str(error.value)
        assert "/tmp/kvoy-nothing.sock" in str(error.value) or "127.0.0.1:1" in str(error.value)


def test_back_off_grows_to_a_quarter_second_and_stays() -> None:
    assert [backoff_s(n) for n in (0, 1, 2, 3, 5, 6, 10_000)] == [0, 0.01, 0.02, 0.04, 0.16, 0.25, 0.25]


async def test_a_cancellation_that_redis_py_answers_with_a_result_is_not_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def swallowing(*_: object) -> list[None]:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return [None, None]
        raise AssertionError

    monkeypatch.setattr(store.configuration._connection.commands, "hmget", swallowing)
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(store.configuration.head())
        await asyncio.sleep(0)
        looking.cancel()

    assert looking.cancelled()
