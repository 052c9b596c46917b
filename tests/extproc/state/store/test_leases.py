import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from extproc.state import keys
from extproc.state.store import Store, StoreUnavailable

LONG, SHORT = 60_000, 1
"""Times to live in ms."""


async def test_what_is_free_is_taken_and_what_another_holds_is_not(store: Store) -> None:
    assert await store.leases.claim("engine", "one", ["a", "b"], LONG) == {"a", "b"}
    assert await store.leases.claim("engine", "two", ["b", "c"], LONG) == {"c"}
    assert await store.leases.claim("engine", "one", ["a", "b", "c"], LONG) == {"a", "b"}
    assert await store.leases.claim("other", "two", ["a"], LONG) == {"a"}
    assert await store.leases.claim("engine", "two", [], LONG) == frozenset()


async def test_claiming_again_renews(store: Store, raw: Redis) -> None:
    await store.leases.claim("engine", "one", ["a"], 5000)
    await store.leases.claim("engine", "one", ["a"], LONG)
    assert 5000 < await raw.pttl(keys.lease("g", "engine", "a")) <= LONG

    await store.leases.claim("engine", "two", ["a"], 10 * LONG)
    assert await raw.pttl(keys.lease("g", "engine", "a")) <= LONG


async def test_a_lease_that_ran_out_is_free(store: Store) -> None:
    await store.leases.claim("engine", "crashed", ["a"], SHORT)
    async with asyncio.timeout(20):
        while not await store.leases.claim("engine", "alive", ["a"], LONG):
            await asyncio.sleep(0.005)

    assert await store.leases.claim("engine", "crashed", ["a"], LONG) == frozenset()


async def test_only_the_holder_gives_up_a_lease(store: Store) -> None:
    await store.leases.claim("engine", "one", ["a", "b"], LONG)
    await store.leases.release("engine", "two", ["a", "b"])
    await store.leases.release("engine", "one", ["b", "never held"])
    await store.leases.release("engine", "one", [])

    assert await store.leases.claim("engine", "two", ["a", "b"], LONG) == {"b"}


async def test_of_many_that_claim_at_once_each_lease_has_one_holder(
    open_store: Callable[[], Store],
) -> None:
    stores, names = [open_store() for _ in range(4)], [f"n{number}" for number in range(40)]
    async with asyncio.TaskGroup() as tasks:
        claims = [
            tasks.create_task(store.leases.claim("engine", f"h{n}", names[n * 5 :] + names[: n * 5], LONG))
            for n, store in enumerate(stores)
        ]

    held = [name for claim in claims for name in claim.result()]
    assert sorted(held) == sorted(names)


async def test_members_are_those_that_appeared_lately(store: Store) -> None:
    assert await store.leases.appear("collector", "one", LONG) == {"one"}
    assert await store.leases.appear("collector", "two", SHORT) >= {"one", "two"}
    assert await store.leases.appear("worker", "three", LONG) == {"three"}
    async with asyncio.timeout(20):
        while await store.leases.appear("collector", "one", LONG) != {"one"}:
            await asyncio.sleep(0.005)


async def test_who_disappears_is_no_member(store: Store) -> None:
    await store.leases.appear("collector", "one", LONG)
    await store.leases.appear("collector", "two", LONG)
    await store.leases.disappear("collector", "one")
    await store.leases.disappear("collector", "never seen")

    assert await store.leases.appear("collector", "two", LONG) == {"two"}


async def test_a_flush_frees_everything_and_the_next_claim_takes_it_again(store: Store, raw: Redis) -> None:
    await store.leases.claim("engine", "one", ["a"], LONG)
    await raw.flushall()
    await raw.script_flush()

    assert await store.leases.claim("engine", "one", ["a"], LONG) == {"a"}


async def test_a_killed_store_is_reported_by_every_operation(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    own_valkey.kill()
    try:
        for attempt in (
            store.leases.claim("k", "one", ["a"], LONG),
            store.leases.release("k", "one", ["a"]),
            store.leases.appear("k", "one", LONG),
            store.leases.disappear("k", "one"),
        ):
            with pytest.raises(StoreUnavailable):
                await attempt
    finally:
        await store.close()
