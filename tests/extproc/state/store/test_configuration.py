import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from extproc.state import keys
from extproc.state.records import Delete, Publication, Put
from extproc.state.store import Head, Store, StoreCorrupt, StoreUnavailable
from extproc.testing import a_pod, a_route, a_rule, a_server

ROUTE, SERVER, POD = a_route("r", a_rule("s"), model="m"), a_server("s"), a_pod("p", "s")
CONFIG, LOG = keys.config("g"), keys.log("g")
NOW = 0
"""Of `tail`: do not wait."""


def whole(epoch: str, generation: int, *records: object) -> Publication:
    return Publication(epoch, generation, tuple(Put(r) for r in records), whole=True)


def step(epoch: str, generation: int, *changes: Put | Delete) -> Publication:
    return Publication(epoch, generation, changes)


async def everything(raw: Redis) -> dict[bytes, object]:
    """All that Redis holds, byte for byte."""
    return {key: await raw.dump(key) for key in sorted(await raw.keys("*"))}


async def test_an_empty_store_holds_nothing(store: Store) -> None:
    assert await store.configuration.load() is None
    assert await store.configuration.head() is None
    assert await store.configuration.tail("0-0", NOW) == []


async def test_what_is_published_whole_is_loaded(store: Store) -> None:
    assert await store.configuration.publish(whole("e", 1, ROUTE, SERVER, POD))

    stored = await store.configuration.load()

    assert stored is not None
    assert (stored.epoch, stored.generation) == ("e", 1)
    assert stored.records == {r.key: r for r in (ROUTE, SERVER, POD)}
    assert await store.configuration.head() == Head("e", 1) == ("e", 1)


async def test_a_step_changes_what_it_names_and_nothing_else(store: Store) -> None:
    await store.configuration.publish(whole("e", 1, ROUTE, SERVER, POD))
    bigger = a_server("s", model="big")

    assert await store.configuration.publish(step("e", 2, Put(bigger), Delete(POD.key)))

    stored = await store.configuration.load()
    assert stored is not None
    assert (stored.generation, stored.records) == (2, {ROUTE.key: ROUTE, SERVER.key: bigger})


async def test_a_step_may_change_nothing(store: Store) -> None:
    await store.configuration.publish(whole("e", 1, POD))

    assert await store.configuration.publish(step("e", 2))
    assert await store.configuration.head() == Head("e", 2)


async def test_the_log_tells_every_publication_in_order(store: Store) -> None:
    told = [whole("e", 1, POD), step("e", 2, Put(SERVER)), step("e", 3, Delete(POD.key))]
    for publication in told:
        assert await store.configuration.publish(publication)

    entries = await store.configuration.tail("0-0", NOW)

    assert [publication for _, publication in entries] == told
    assert [p for _, p in await store.configuration.tail(entries[0][0], NOW)] == told[1:]
    assert await store.configuration.tail(entries[-1][0], NOW) == []


async def test_a_load_is_continued_by_the_log_without_gap_or_repeat(store: Store) -> None:
    await store.configuration.publish(whole("e", 1, POD))
    await store.configuration.publish(step("e", 2))
    stored = await store.configuration.load()
    assert stored is not None
    await store.configuration.publish(step("e", 3))

    assert [p.generation for _, p in await store.configuration.tail(stored.position, NOW)] == [3]


async def test_a_blocked_reader_is_woken_by_a_publication(open_store: Callable[[], Store]) -> None:
    reader, writer = open_store(), open_store()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(reader.configuration.tail("0-0", 60_000))
        await writer.configuration.publish(whole("e", 1, POD))

    assert [p.generation for _, p in reading.result()] == [1]


async def test_commands_are_answered_while_a_read_blocks(store: Store) -> None:
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(store.configuration.tail("0-0", 60_000))
        assert await store.configuration.head() is None
        await store.configuration.publish(whole("e", 1))
        await reading


async def test_a_cancelled_read_does_not_spoil_the_next(store: Store) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.configuration.tail("0-0", 60_000)
    await store.configuration.publish(whole("e", 1))

    assert len(await store.configuration.tail("0-0", NOW)) == 1


@pytest.mark.parametrize(
    "refused",
    [
        step("e", 4),
        step("e", 5),
        step("e", 7),
        step("other", 6),
        step("other", 1),
        whole("e", 6, POD),
        whole("e", 1, POD),
        whole("other", 5, POD),
        whole("other", 1, POD),
    ],
    ids=lambda p: f"{'whole' if p.whole else 'step'}-{p.epoch}-{p.generation}",
)
async def test_what_does_not_fit_changes_nothing(store: Store, raw: Redis, refused: Publication) -> None:
    await store.configuration.publish(whole("e", 5, ROUTE, SERVER))
    before = await everything(raw)

    assert not await store.configuration.publish(refused)
    assert await everything(raw) == before


@pytest.mark.parametrize("generation", [1, 2, 9])
async def test_a_step_never_fits_an_empty_store(store: Store, raw: Redis, generation: int) -> None:
    assert not await store.configuration.publish(step("e", generation, Put(POD)))
    assert await everything(raw) == {}


async def test_an_edit_after_a_flush_does_not_pass_for_the_configuration(store: Store, raw: Redis) -> None:
    await store.configuration.publish(whole("e", 1, ROUTE, SERVER, POD))
    await raw.flushall()

    assert not await store.configuration.publish(step("e", 2, Put(a_pod("q", "s"))))
    assert await store.configuration.load() is None


async def test_a_new_epoch_replaces_everything(store: Store) -> None:
    await store.configuration.publish(whole("e", 5, ROUTE, SERVER, POD))

    assert await store.configuration.publish(whole("f", 6, POD))

    stored = await store.configuration.load()
    assert stored is not None
    assert (stored.epoch, stored.generation, stored.records) == ("f", 6, {POD.key: POD})
    assert not await store.configuration.publish(step("e", 6, Put(SERVER)))
    assert await store.configuration.publish(step("f", 7, Put(SERVER)))


async def test_of_two_publishers_that_begin_at_once_one_is_refused(open_store: Callable[[], Store]) -> None:
    one, two = open_store(), open_store()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(one.configuration.publish(whole("one", 1, POD)))
        second = tasks.create_task(two.configuration.publish(whole("two", 1, SERVER)))

    assert first.result() != second.result()
    stored = await one.configuration.load()
    assert stored is not None
    expected = ("one", {POD.key: POD}) if first.result() else ("two", {SERVER.key: SERVER})
    assert (stored.epoch, stored.records) == expected


async def test_of_two_steps_to_one_generation_one_is_refused(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    await stores[0].configuration.publish(whole("e", 1))
    async with asyncio.TaskGroup() as tasks:
        tries = [
            tasks.create_task(s.configuration.publish(step("e", 2, Put(a_pod(f"p{n}")))))
            for n, s in enumerate(stores)
        ]

    assert sorted(t.result() for t in tries) == [False, False, False, True]
    stored = await stores[0].configuration.load()
    assert stored is not None
    assert len(stored.records) == 1
    assert len(await stores[0].configuration.tail("0-0", NOW)) == 2


async def test_a_reader_never_sees_half_a_publication(open_store: Callable[[], Store]) -> None:
    writer, reader = open_store(), open_store()
    await writer.configuration.publish(whole("e", 1, *(a_pod(f"p{n}", "s1") for n in range(50))))
    done = asyncio.Event()

    async def write() -> None:
        for generation in range(2, 40):
            pods = (Put(a_pod(f"p{n}", f"s{generation}")) for n in range(50))
            assert await writer.configuration.publish(step("e", generation, *pods))
        done.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        while not done.is_set():
            stored = await reader.configuration.load()
            assert stored is not None
            servers = {pod.servers for pod in stored.records.values()}
            assert servers == {(f"s{stored.generation}",)}


async def test_a_publication_that_fails_changes_nothing(store: Store, raw: Redis) -> None:
    await store.configuration.publish(whole("e", 1, POD))
    await raw.delete(LOG)
    await raw.set(LOG, "not a stream")
    before = await everything(raw)

    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.configuration.publish(step("e", 2, Put(SERVER)))

    assert await everything(raw) == before


@pytest.mark.parametrize("missing", ["epoch", "generation"])
async def test_what_is_incomplete_is_as_good_as_nothing(store: Store, raw: Redis, missing: str) -> None:
    await store.configuration.publish(whole("e", 5, POD))
    await raw.hdel(CONFIG, missing)

    assert await store.configuration.load() is None
    assert await store.configuration.head() is None
    assert not await store.configuration.publish(step("e", 6))
    assert await store.configuration.publish(whole("f", 1, SERVER))
    stored = await store.configuration.load()
    assert stored is not None
    assert stored.records == {SERVER.key: SERVER}


async def test_the_log_is_bounded(store: Store, raw: Redis) -> None:
    await store.configuration.publish(whole("e", 1))
    for generation in range(2, 2500):
        assert await store.configuration.publish(step("e", generation))

    assert 2000 <= await raw.xlen(LOG) < 2200


async def test_scripts_survive_being_forgotten(store: Store, raw: Redis) -> None:
    await store.configuration.publish(whole("e", 1, POD))
    await store.configuration.load()
    await raw.script_flush()

    assert await store.configuration.load() is not None
    assert await store.configuration.publish(step("e", 2))
    await raw.script_flush()
    assert await store.configuration.head() == Head("e", 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (POD.key, b"\xc1 not msgpack"),
        (POD.key, b"\x80"),
        ("pod/default/q", b"\x01"),
        ("generation", "seven"),
        ("epoch", b"\xff"),
    ],
)
async def test_an_unreadable_configuration_is_named(
    store: Store, raw: Redis, field: str, value: bytes | str
) -> None:
    await store.configuration.publish(whole("e", 1, POD))
    await raw.hset(CONFIG, field, value)

    with pytest.raises(StoreCorrupt, match="configuration of group 'g' is unreadable"):
        await store.configuration.load()


async def test_a_record_under_another_key_is_unreadable(store: Store, raw: Redis) -> None:
    await store.configuration.publish(whole("e", 1, POD))
    await raw.hset(CONFIG, "pod/default/other", await raw.hget(CONFIG, POD.key))

    with pytest.raises(StoreCorrupt, match="field pod/default/other holds pod/default/p"):
        await store.configuration.load()


@pytest.mark.parametrize("fields", [{"p": b"\xc1"}, {"other": "x"}])
async def test_an_unreadable_log_entry_is_named(store: Store, raw: Redis, fields: dict[str, object]) -> None:
    await raw.xadd(LOG, fields)

    with pytest.raises(StoreCorrupt, match="log of group 'g' is unreadable"):
        await store.configuration.tail("0-0", NOW)


async def test_groups_do_not_see_each_other(valkey: object, store: Store) -> None:
    other = Store.connect(valkey.url, "other")
    try:
        await store.configuration.publish(whole("e", 1, POD))

        assert await other.configuration.load() is None
    finally:
        await other.close()
