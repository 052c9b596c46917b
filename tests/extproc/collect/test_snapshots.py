import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from extproc.cache import snapshots
from extproc.cache.frames import Namespace, packed
from extproc.cache.snapshots import PrefixSnapshot
from extproc.collect import snapshots as module
from extproc.collect.feeds import Following
from extproc.collect.snapshots import SnapshotWriter
from extproc.state import keys
from extproc.state.store import StoreUnavailable, Subject

LIFE = 7
KV, PREFIX = Subject(Namespace.KV, LIFE), Subject(Namespace.PREFIX, LIFE)


class Feed:
    """Gives `news` once."""

    def __init__(self, news=None):
        self.news = news
        self.positions = []

    def snapshot(self, position):
        self.positions.append(position)
        news, self.news = self.news, None
        return news


class Prefixes:
    """One life with these blocks."""

    def __init__(self):
        self.lives = frozenset()
        self.dirty = set()
        self.blocks = [1, 2]

    def snapshot(self, life):
        assert life == LIFE
        return PrefixSnapshot("5-0", 100, packed(self.blocks), 64, b"")


@pytest.fixture
def parts():
    return SimpleNamespace(
        ownership=SimpleNamespace(current=True), prefixes=Prefixes(), feeds=SimpleNamespace(running={})
    )


@pytest.fixture
def writer(store, parts):
    return SnapshotWriter(store, parts.ownership, parts.prefixes, parts.feeds)


async def stored(store):
    return await store.snapshots.read([KV, PREFIX])


async def test_what_a_feed_knows_is_written_when_it_has_changed(store, writer, parts):
    feed = Feed(b"first")
    parts.feeds.running[LIFE] = Following(LIFE, feed, None)
    position = await store.streams.publish("somebody", 1, b"")
    await writer.write()
    await writer.write()
    assert (await stored(store), writer.written) == ({KV: b"first"}, 1)
    assert feed.positions == [position, position]

    feed.news = b"second"
    await writer.write()

    assert await stored(store) == {KV: b"second"}


async def test_placements_are_written_when_something_was_placed(store, writer, parts):
    parts.prefixes.lives = frozenset({LIFE})
    parts.prefixes.dirty = {LIFE}
    await writer.write()
    await writer.write()

    assert writer.written == 1
    assert snapshots.decode((await stored(store))[PREFIX]) == parts.prefixes.snapshot(LIFE)
    assert parts.prefixes.dirty == set()


async def test_an_engine_without_any_placement_needs_no_snapshot(store, writer, parts):
    parts.prefixes.lives = frozenset({LIFE})
    parts.prefixes.blocks = []
    await writer.write()

    assert await stored(store) == {}


async def test_unchanged_snapshots_live_on(store, raw, writer, parts):
    parts.feeds.running[LIFE] = Following(LIFE, Feed(b"kv"), None)
    await writer.write()
    key = keys.cache_snapshot("g", Namespace.KV, LIFE)
    await raw.pexpire(key, 5000)

    await writer.write()

    assert await raw.pttl(key) > 500_000


async def test_lost_snapshots_are_written_again_though_nothing_changed(store, raw, writer, parts):
    parts.prefixes.lives, parts.prefixes.dirty = frozenset({LIFE}), {LIFE}
    parts.feeds.running[LIFE] = Following(LIFE, Feed(b"kv"), None)
    await writer.write()
    before = await stored(store)

    await raw.flushall()
    await writer.write()

    assert set(before) == {KV, PREFIX}
    assert await stored(store) == before


async def test_a_snapshot_that_was_taken_over_is_written_again_when_it_is_lost(store, writer, parts):
    parts.feeds.running[LIFE] = Following(LIFE, Feed(), b"of the former collector")
    await writer.write()

    assert await stored(store) == {KV: b"of the former collector"}


async def test_what_could_not_be_written_is_written_the_next_time(store, writer, parts, monkeypatch):
    parts.feeds.running[LIFE] = Following(LIFE, Feed(b"kv"), None)
    working = store.snapshots.write

    async def refuse(*_):
        raise StoreUnavailable("away")

    monkeypatch.setattr(store.snapshots, "write", refuse)
    with pytest.raises(StoreUnavailable):
        await writer.write()
    monkeypatch.setattr(store.snapshots, "write", working)
    await writer.write()

    assert await stored(store) == {KV: b"kv"}


async def test_without_a_lease_nothing_is_written(store, writer, parts):
    parts.feeds.running[LIFE] = Following(LIFE, Feed(b"kv"), None)
    parts.ownership.current = False
    await writer.write()
    assert await stored(store) == {}

    parts.ownership.current = True
    await writer.write()
    assert await stored(store) == {KV: b"kv"}


async def test_of_engines_that_are_no_longer_ours_nothing_is_kept(store, raw, writer, parts):
    parts.feeds.running[LIFE] = Following(LIFE, Feed(b"kv"), None)
    await writer.write()
    parts.feeds.running.clear()
    await writer.write()
    await raw.flushall()
    parts.feeds.running[LIFE] = Following(LIFE, Feed(), None)
    await writer.write()

    assert await stored(store) == {}


@asynccontextmanager
async def writing(writer):
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(writer.run())
        try:
            yield
        finally:
            task.cancel()


async def test_it_writes_now_and_then_and_when_it_has_to_hurry(store, writer, parts, until, monkeypatch):
    feed = Feed(b"first")
    parts.feeds.running[LIFE] = Following(LIFE, feed, None)
    async with writing(writer):
        await asyncio.sleep(0.05)
        assert await stored(store) == {}
        writer.hurry()
        await until(lambda: stored(store))

        monkeypatch.setattr(module, "EVERY_S", 0.01)
        writer.hurry()
        feed.news = b"second"
        await until(lambda: writer.written == 2)


async def test_a_store_that_is_away_is_told_of_once(store, writer, until, monkeypatch, caplog):
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    calls = []

    async def refuse():
        calls.append(1)
        raise StoreUnavailable("away")

    monkeypatch.setattr(store.streams, "ends", refuse)
    async with writing(writer):
        await until(lambda: len(calls) > 2)

    assert [record.message for record in caplog.records] == ["snapshots can not be written: away"]
