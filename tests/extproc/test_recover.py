from collections.abc import Collection

import pytest
from redis.asyncio import Redis

from extproc.cache import frames, snapshots
from extproc.cache.frames import Namespace, Operation
from extproc.cache.holdings import Holdings
from extproc.cache.snapshots import KvSnapshot
from extproc.recover import recover
from extproc.state import keys
from extproc.state.store import Store, StoreUnavailable, Subject
from extproc.state.store.streams import START

ONE, TWO = 11, 22
BIG = 1_000_000
CHAIN = list(range(1000, 1010))


def added(life: int, hashes: list[int], namespace: Namespace = Namespace.PREFIX, first: int = 0) -> bytes:
    return frames.pack_all(frames.changes(life, namespace, Operation.ADD, hashes, first))


def knowing(*lives: int) -> Holdings:
    holdings = Holdings()
    for life in lives:
        holdings.enroll(life, BIG)
    return holdings


def drained(holdings: Holdings) -> Holdings:
    while holdings.step():
        pass
    return holdings


async def recovered(store: Store, holdings: Holdings, lives: Collection[int]) -> int:
    until = (await store.streams.ends()).positions.cache
    pieces = 0
    async for number in recover(store, holdings, lives, until, set()):
        pieces += 1
        assert number == pieces
    drained(holdings)
    return pieces


def prefix(holdings: Holdings) -> list[int]:
    return holdings.prefix_depths(CHAIN, [ONE, TWO])


async def write_prefix(store: Store, life: int, hashes: list[int], position: str) -> None:
    source = knowing(life)
    source.receive(added(life, hashes))
    raw = snapshots.encode(drained(source).snapshot(life, position))
    await store.snapshots.write(Subject(Namespace.PREFIX, life), raw)


async def test_of_an_empty_store_nothing_is_recovered(store: Store) -> None:
    holdings = knowing(ONE)

    assert await recovered(store, holdings, [ONE]) == 1
    assert await recovered(store, holdings, []) == 0
    assert prefix(holdings) == [0, 0]


async def test_without_snapshots_everything_that_is_retained_is_replayed(store: Store) -> None:
    for at, block in enumerate(CHAIN):
        await store.streams.publish("p", at + 1, added(ONE, [block], first=at))
    holdings = knowing(ONE, TWO)
    await recovered(store, holdings, [ONE, TWO])

    assert prefix(holdings) == [10, 0]


async def test_a_snapshot_is_continued_by_the_stream(store: Store) -> None:
    await store.streams.publish("p", 1, added(ONE, CHAIN[:3]))
    position = await store.streams.publish("p", 2, frames.clear(ONE, Namespace.PREFIX).pack())
    await write_prefix(store, ONE, CHAIN[:4], position)
    await store.streams.publish("p", 3, added(ONE, CHAIN[4:6], first=4) + added(TWO, CHAIN[:1]))
    kv = KvSnapshot(position, frames.packed(CHAIN[:2]), frames.packed([1, 2]), bytes(8), -1)
    await store.snapshots.write(Subject(Namespace.KV, ONE), snapshots.encode(kv))
    holdings = knowing(ONE, TWO)
    await recovered(store, holdings, [ONE, TWO])

    # What came before the snapshots, such as the clearing, is not replayed.
    assert prefix(holdings) == [6, 1]
    assert holdings.kv_depths(CHAIN, [ONE, TWO]) == [2, 0]


async def test_what_a_snapshot_holds_replaces_what_was_held(store: Store) -> None:
    await write_prefix(store, ONE, CHAIN[:4], START)
    holdings = knowing(ONE, TWO)
    holdings.receive(added(ONE, CHAIN) + added(TWO, CHAIN[:2]))
    drained(holdings)
    await recovered(store, holdings, [ONE, TWO])

    assert prefix(holdings) == [4, 2]


async def test_only_the_lives_that_are_asked_for_are_touched(store: Store) -> None:
    await write_prefix(store, ONE, CHAIN, START)
    await write_prefix(store, TWO, CHAIN, START)
    await store.streams.publish("p", 1, added(ONE, CHAIN) + added(TWO, CHAIN))
    holdings = knowing(ONE, TWO)
    await recovered(store, holdings, [TWO])

    assert prefix(holdings) == [0, 10]


async def test_what_comes_after_the_given_position_is_left_to_others(store: Store) -> None:
    until = await store.streams.publish("p", 1, added(ONE, CHAIN[:3]))
    await store.streams.publish("p", 2, added(ONE, CHAIN))
    holdings = knowing(ONE)
    async for _ in recover(store, holdings, [ONE], until, set()):
        pass

    assert prefix(drained(holdings))[0] == 3


async def test_a_life_that_ends_meanwhile_is_passed_over(store: Store) -> None:
    await write_prefix(store, ONE, CHAIN, START)
    await store.streams.publish("p", 1, added(ONE, CHAIN))
    holdings = knowing(ONE)
    holdings.retire(ONE)
    await recovered(store, holdings, [ONE])

    assert prefix(holdings)[0] == 0


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x80", None])
async def test_what_is_unreadable_is_as_good_as_missing(
    store: Store, raw: Redis, garbage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    await store.streams.publish("p", 1, b"\x01 no frames")
    await store.streams.publish("p", 2, added(ONE, CHAIN))
    if garbage is None:
        await write_prefix(store, ONE, CHAIN[:2], "not a position")
    else:
        await store.snapshots.write(Subject(Namespace.PREFIX, ONE), garbage)
    await raw.xadd(keys.cache("g"), {"other": "x"})
    holdings = knowing(ONE)
    await recovered(store, holdings, [ONE])

    assert prefix(holdings)[0] == 10
    assert "the cache snapshot of life 000000000000000b is unreadable" in caplog.text
    assert "changes of the cache by p are unreadable" in caplog.text


async def test_many_lives_are_recovered_in_small_pieces(store: Store) -> None:
    lives = list(range(1, 41))
    for life in lives:
        await write_prefix(store, life, CHAIN, START)
    for number in range(600):
        await store.streams.publish("p", number + 1, added(1 + number % 40, CHAIN))
    holdings = knowing(*lives)

    assert await recovered(store, holdings, lives) > 600
    assert holdings.prefix_depths(CHAIN, lives) == [10] * 40


async def test_a_store_that_goes_away_is_reported(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    own_valkey.kill()
    try:
        with pytest.raises(StoreUnavailable):
            async for _ in recover(store, knowing(ONE), [ONE], "5-0", set()):
                pass
    finally:
        await store.close()
