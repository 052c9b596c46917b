import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from extproc.state import keys
from extproc.state.live import Engine, InFlight, Load
from extproc.state.store import Entry, Positions, Store, StoreUnavailable
from extproc.state.store import streams as module
from extproc.state.store.streams import START, moment_ms, order

ALL = Positions(START, START)
NOW = 0
"""Of `read`: do not wait."""
MINE = InFlight("one", {"pod/ns/a": Load(2, 700)}, whole=True)
ENGINE = Engine("pod/ns/a", "10.0.0.1:8000", 0.1, started=7.0, running=3)


async def test_empty_streams_hold_nothing(store: Store) -> None:
    read = await store.streams.read(ALL, NOW)

    assert read == (ALL, [], [], 0, 0, False)
    assert await store.streams.statements(START) == ([], START)
    assert (await store.streams.ends()).positions == ALL


async def test_what_is_stated_is_read_in_order(store: Store) -> None:
    await store.streams.state([MINE, ENGINE])
    await store.streams.state([InFlight("two", {})])

    read = await store.streams.read(ALL, NOW)

    assert read.statements == [MINE, ENGINE, InFlight("two", {})]
    assert (read.total, read.unreadable) == (2, 0)
    assert (await store.streams.statements(START))[0] == read.statements
    assert (await store.streams.read(read.positions, NOW)).statements == []


async def test_what_is_published_is_read_with_its_producer_and_number(store: Store) -> None:
    one = await store.streams.publish("p/one", 1, b"\x00frames\xff")
    two = await store.streams.publish("p/one", 2, b"more")

    read = await store.streams.read(ALL, NOW)

    assert read.changes == [Entry(one, "p/one", 1, b"\x00frames\xff"), Entry(two, "p/one", 2, b"more")]
    assert read.positions == Positions(START, two)
    assert (await store.streams.read(Positions(START, one), NOW)).changes == read.changes[1:]


async def test_one_read_waits_for_both_streams(open_store: Callable[[], Store]) -> None:
    reader, writer = open_store(), open_store()
    for publish in (lambda: writer.streams.state([MINE]), lambda: writer.streams.publish("p", 1, b"x")):
        positions = (await reader.streams.ends()).positions
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(reader.streams.read(positions, 60_000))
            await publish()
        assert reading.result().total == 1


async def test_reading_on_from_the_ends_misses_nothing(store: Store) -> None:
    await store.streams.state([MINE])
    await store.streams.publish("p", 1, b"x")
    ends = await store.streams.ends()
    assert (await store.streams.read(ends.positions, NOW)).total == 0

    await store.streams.publish("p", 2, b"y")
    read = await store.streams.read(ends.positions, NOW)

    assert [entry.sequence for entry in read.changes] == [2]
    assert 0 <= moment_ms(read.positions.cache) - ends.now_ms < 60_000


async def test_a_long_backlog_is_read_in_bounded_pieces(store: Store) -> None:
    for number in range(300):
        await store.streams.publish("p", number, b"x")
    positions, sizes, full = ALL, [], True
    while full:
        read = await store.streams.read(positions, NOW)
        positions, full = read.positions, read.full
        sizes.append(read.total)

    assert sum(sizes) == 300
    assert len(sizes) > 1


async def test_a_stretch_of_the_stream_is_read_page_by_page(store: Store) -> None:
    positions = [await store.streams.publish("p", number, b"x") for number in range(10)]
    after, until, found, pages = positions[1], positions[7], [], 0
    while order(after) < order(until):
        page, after = await store.streams.between(after, until, 4)
        found += [entry.position for entry in page]
        pages += 1

    assert found == positions[2:8]
    assert pages == 2


async def test_the_pages_of_a_stretch_come_to_its_end(store: Store, raw: Redis) -> None:
    last = [await store.streams.publish("p", number, b"x") for number in range(8)][-1]
    page, after = await store.streams.between(START, last, 8)
    assert (len(page), after) == (8, last)
    await raw.xdel(keys.cache("g"), last)

    assert (await store.streams.between(page[-2].position, last, 8)) == ([], last)


async def test_unreadable_entries_are_passed_over_and_counted(store: Store, raw: Redis) -> None:
    await raw.xadd(keys.live("g"), {"f": b"\xc1"})
    await raw.xadd(keys.live("g"), {"other": b""})
    await raw.xadd(keys.cache("g"), {"p": "p", "s": "many", "f": b""})
    await raw.xadd(keys.cache("g"), {"p": b"\xff", "s": "1", "f": b""})
    await raw.xadd(keys.cache("g"), {"p": "p", "s": "1"})
    await store.streams.state([MINE])
    await store.streams.publish("p", 1, b"x")

    read = await store.streams.read(ALL, NOW)

    assert (read.statements, [entry.frames for entry in read.changes]) == ([MINE], [b"x"])
    assert (read.total, read.unreadable) == (7, 5)
    assert (await store.streams.read(read.positions, NOW)).total == 0


@pytest.mark.parametrize("stream", [keys.live("g"), keys.cache("g")])
async def test_what_is_older_than_retained_is_forgotten(store: Store, raw: Redis, stream: str) -> None:
    now_ms = (await store.streams.ends()).now_ms
    retained_s = module.LIVE_RETENTION_S if stream == keys.live("g") else module.CACHE_RETENTION_S
    old_ms, kept_ms = now_ms - int(retained_s * 1000) - 1000, now_ms - int(retained_s * 1000) + 60_000
    kept_ms = min(kept_ms, now_ms - 1)
    for number in range(1000):
        await raw.xadd(stream, {"p": "p", "s": "1", "f": b"old"}, id=f"{old_ms}-{number}")
    await raw.xadd(stream, {"p": "p", "s": "1", "f": b"kept"}, id=f"{kept_ms}-0")
    if stream == keys.live("g"):
        await store.streams.state([MINE])
    else:
        await store.streams.publish("p", 2, b"x")

    # Forgotten in whole nodes of a hundred entries or so.
    assert 2 <= await raw.xlen(stream) < 300
    assert (f"{kept_ms}-0").encode() in [at for at, _ in await raw.xrange(stream)]


async def test_groups_do_not_read_each_other(valkey: object, store: Store) -> None:
    other = Store.connect(valkey.url, "other")
    try:
        await store.streams.state([MINE])
        await store.streams.publish("p", 1, b"x")

        assert (await other.streams.read(ALL, NOW)).total == 0
        assert (await other.streams.ends()).positions == ALL
    finally:
        await other.close()


async def test_a_killed_store_is_reported_by_every_operation(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    own_valkey.kill()
    try:
        for attempt in (
            store.streams.state([MINE]),
            store.streams.publish("p", 1, b""),
            store.streams.read(ALL, NOW),
            store.streams.statements(START),
            store.streams.between(START, "1-0", 1),
            store.streams.ends(),
        ):
            with pytest.raises(StoreUnavailable, match=own_valkey.url):
                await attempt
    finally:
        await store.close()


def test_positions_have_an_order_and_a_moment() -> None:
    ordered = [START, "5-0", "5-2", "5-10", "10-0", "1700000000000-0"]

    assert [order(position) for position in ordered] == sorted(map(order, ordered))
    assert moment_ms("1700000000000-3") == 1_700_000_000_000
    assert order("7") == order("7-0")
