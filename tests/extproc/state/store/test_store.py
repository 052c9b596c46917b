import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from extproc.state.store import Store


async def test_all_processes_of_a_group_get_one_secret(
    valkey: object, open_store: Callable[[], Store]
) -> None:
    other = Store.connect(valkey.url, "other")
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(open_store().secret()) for _ in range(5)]
    secrets = {one.result() for one in asked}

    assert len(secrets) == 1
    (secret,) = secrets
    assert len(secret) == 16
    assert await other.secret() != secret
    await other.close()


async def test_an_emptied_store_gets_its_secret_back(store: Store, raw: Redis) -> None:
    secret = await store.secret()
    await raw.flushall()

    assert await store.secret(secret) == secret
    assert await store.secret() == secret


async def test_a_stored_secret_outranks_a_known_one(store: Store) -> None:
    secret = await store.secret()

    assert await store.secret(b"0123456789abcdef") == secret


@pytest.mark.parametrize("url", ["http://h", "h:6379", ""])
def test_what_is_no_redis_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="unix://"):
        Store.connect(url, "g")
