import asyncio
from contextlib import asynccontextmanager

import pytest

from extproc.cache import frames, snapshots
from extproc.cache.frames import Namespace, Operation
from extproc.cache.snapshots import PrefixSnapshot
from extproc.collect import prefixes as module
from extproc.collect.prefixes import Prefixes
from extproc.state.store import StoreUnavailable, Subject

LIFE, OTHER = 7, 8
ROOM = 10**6


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_EVERY_S", 0.01)


@asynccontextmanager
async def folding(store, capacities, emptied=lambda: None):
    prefixes = Prefixes(store, lambda: capacities, emptied)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(prefixes.run())
        try:
            yield prefixes
        finally:
            task.cancel()


class Worker:
    """Publishes placements."""

    def __init__(self, store):
        self._streams = store.streams
        self._sequence = 0

    async def places(self, life, *hashes, namespace=Namespace.PREFIX, operation=Operation.ADD):
        self._sequence += 1
        told = frames.pack_all(frames.changes(life, namespace, operation, hashes))
        return await self._streams.publish("worker", self._sequence, told)


@pytest.fixture
def worker(store):
    return Worker(store)


def held(prefixes, life=LIFE):
    if life not in prefixes.lives:
        return None
    snapshot = prefixes.snapshot(life)
    return set(frames.numbers(snapshot.young)) | set(frames.numbers(snapshot.old))


async def test_placements_on_our_engines_are_folded(store, worker, until):
    async with folding(store, {LIFE: ROOM}) as prefixes:
        await worker.places(LIFE, 1, 2, 3)
        await worker.places(OTHER, 9)
        last = await worker.places(LIFE, 3, operation=Operation.REMOVE)
        await until(lambda: held(prefixes) == {1, 2})

        assert prefixes.dirty == {LIFE}
        assert prefixes.lives == {LIFE}
        await until(lambda: prefixes.snapshot(LIFE).position == last)


async def test_exact_changes_are_not_folded(store, worker, until):
    async with folding(store, {LIFE: ROOM}) as prefixes:
        await worker.places(LIFE, 1, namespace=Namespace.KV)
        last = await worker.places(OTHER, 1)
        await until(lambda: LIFE in prefixes.lives and prefixes.snapshot(LIFE).position == last)

        assert held(prefixes) == set()
        assert prefixes.dirty == set()


async def test_an_engine_is_taken_over_with_its_snapshot_and_what_was_said_since(store, worker, until):
    position = await worker.places(LIFE, 666)
    await worker.places(LIFE, 2)
    young = frames.packed([1])
    await store.snapshots.write(
        Subject(Namespace.PREFIX, LIFE), snapshots.encode(PrefixSnapshot(position, ROOM, young, 64, b""))
    )

    async with folding(store, {LIFE: ROOM}) as prefixes:
        await until(lambda: held(prefixes) == {1, 2})


async def test_an_engine_that_becomes_ours_later_catches_up(store, worker, until):
    capacities = {OTHER: ROOM}
    async with folding(store, capacities) as prefixes:
        await worker.places(LIFE, 1)
        await worker.places(OTHER, 9)
        await until(lambda: held(prefixes, OTHER) == {9})

        capacities[LIFE] = ROOM
        await until(lambda: held(prefixes) == {1})
        assert held(prefixes, OTHER) == {9}


async def test_an_engine_that_is_no_longer_ours_is_forgotten(store, worker, until):
    capacities = {LIFE: ROOM}
    async with folding(store, capacities) as prefixes:
        await worker.places(LIFE, 1)
        await until(lambda: held(prefixes) == {1})
        capacities.clear()
        await until(lambda: not prefixes.lives)


NOWHERE = snapshots.encode(PrefixSnapshot("nowhere", ROOM, b"", 0, b""))


@pytest.mark.parametrize("stored", [b"", b"\xc1", NOWHERE, NOWHERE[:-3]])
async def test_an_unreadable_snapshot_is_as_none(store, worker, until, stored):
    await worker.places(LIFE, 1)
    await store.snapshots.write(Subject(Namespace.PREFIX, LIFE), stored)

    async with folding(store, {LIFE: ROOM}) as prefixes:
        await until(lambda: held(prefixes) == {1})


async def test_unreadable_changes_are_left_out(store, worker, until):
    async with folding(store, {LIFE: ROOM}) as prefixes:
        await store.streams.publish("worker", 1, b"garbage")
        await worker.places(LIFE, 1)
        await until(lambda: held(prefixes) == {1})


async def test_an_emptied_store_is_noticed_and_followed_from_its_start(store, raw, worker, until):
    emptied = []
    async with folding(store, {LIFE: ROOM}, lambda: emptied.append(True)) as prefixes:
        await worker.places(LIFE, 1)
        await until(lambda: held(prefixes) == {1})
        await raw.flushall()
        await until(lambda: emptied)
        await worker.places(LIFE, 2)
        await until(lambda: held(prefixes) == {1, 2})

    assert len(emptied) == 1


async def test_a_store_that_is_away_is_told_of_once(store, until, monkeypatch, caplog):
    caplog.set_level("INFO")
    async with folding(store, {LIFE: ROOM}) as prefixes:
        await until(lambda: LIFE in prefixes.lives)
        working, calls = store.streams.ends, []

        async def refuse():
            calls.append(1)
            raise StoreUnavailable("away")

        monkeypatch.setattr(store.streams, "ends", refuse)
        await until(lambda: len(calls) > 2)
        monkeypatch.setattr(store.streams, "ends", working)
        await until(lambda: "again" in caplog.text)

    assert [record.message for record in caplog.records if "placements" in record.message] == [
        "placements are not followed: away",
        "placements are followed again",
    ]
