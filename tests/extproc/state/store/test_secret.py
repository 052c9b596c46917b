import asyncio
import secrets
from collections.abc import Callable

from redis.asyncio import Redis

from extproc.state.store import Store
from extproc.state.store.secret import SECRET_BYTES

KNOWN = b"0123456789abcdef"


async def test_of_several_at_once_one_is_stored(open_store: Callable[[], Store]) -> None:
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(open_store().secret.keep(secrets.token_bytes(SECRET_BYTES))) for _ in range(5)
        ]

    assert len({one.result() for one in asked}) == 1


async def test_an_empty_store_has_none(store: Store) -> None:
    assert await store.secret.read() is None


async def test_an_emptied_store_gets_its_secret_back(store: Store, raw: Redis) -> None:
    await store.secret.keep(KNOWN)
    await raw.flushall()

    assert await store.secret.keep(KNOWN) == KNOWN
    assert await store.secret.read() == KNOWN


async def test_a_stored_secret_outranks_a_known_one(store: Store) -> None:
    await store.secret.keep(KNOWN)

    assert await store.secret.keep(b"another secret!!") == KNOWN


async def test_each_group_has_its_own(store: Store, valkey: object) -> None:
    await store.secret.keep(KNOWN)
    other = Store.connect(valkey.url, "other")
    assert await other.secret.read() is None
    await other.close()
