import asyncio
from contextlib import asynccontextmanager

import pytest

from extproc.cache.frames import Namespace
from extproc.collect import feeds as module
from extproc.collect.connection import Connection
from extproc.collect.feeds import Feeds
from extproc.collect.kv.feed import Counts
from extproc.state.store import StoreUnavailable, Subject


class Feed:
    """Stands for a `KvFeed`: remembers how it was made, publishes and counts one thing."""

    made: list["Feed"]

    def __init__(self, target, publish, http, sockets, clock):
        self.target = target
        self.publish = publish
        self.restored = None
        self.counts = Counts()
        self.source = "tcp://10.0.0.1:5557"
        self.made.append(self)

    def restore(self, stored):
        self.restored = stored
        return stored != b"garbage"

    async def run(self):
        self.publish(b"frames")
        self.counts.batches += 1
        await asyncio.Event().wait()


class Changes:
    def __init__(self):
        self.published = []

    def publish(self, pod, frames):
        self.published.append((pod, frames))


@pytest.fixture
def made(monkeypatch):
    Feed.made = []
    monkeypatch.setattr(module, "KvFeed", Feed)
    return Feed.made


@pytest.fixture
def feeds(store, clock):
    async def secret():
        return b"s" * 16

    return Feeds(store.snapshots, Changes(), None, secret, clock)


@asynccontextmanager
async def following(feeds, site, life, rank=0):
    connection = Connection(None, f"http://{site.address}")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(feeds.follow(site, site.endpoints[rank], life, connection))
        try:
            yield task
        finally:
            task.cancel()


async def test_a_feed_knows_its_engine(feeds, made, site_of, until):
    site = site_of("10.0.0.1:8000", ranks=2)
    async with following(feeds, site, 7, rank=1):
        await until(lambda: feeds.running)
        target = made[0].target

    assert (target.endpoint_key, target.life, target.rank) == ("pod/default/a#1", 7, 1)
    assert (target.pod_ip, target.http_base_url) == ("10.0.0.1", "http://10.0.0.1:8000")
    assert (target.engine, target.configured, target.secret) == ("vLLM", None, b"s" * 16)


async def test_what_it_tells_is_published_for_its_pod(feeds, made, site_of, until):
    async with following(feeds, site_of("10.0.0.1:8000"), 7):
        await until(lambda: feeds._changes.published)

    assert feeds._changes.published == [("pod/default/a", b"frames")]


async def test_it_continues_from_the_stored_snapshot(feeds, made, site_of, until, store):
    await store.snapshots.write(Subject(Namespace.KV, 7), b"stored")
    async with following(feeds, site_of("10.0.0.1:8000"), 7):
        await until(lambda: feeds.running)

        assert made[0].restored == b"stored"
        assert feeds.running[7].restored == b"stored"


async def test_an_unreadable_snapshot_is_told_and_not_kept(feeds, made, site_of, until, store, caplog):
    await store.snapshots.write(Subject(Namespace.KV, 7), b"garbage")
    async with following(feeds, site_of("10.0.0.1:8000"), 7):
        await until(lambda: feeds.running)

        assert feeds.running[7].restored is None
    assert "unreadable" in caplog.text


async def test_without_the_store_it_learns_anew(feeds, made, site_of, until, store, monkeypatch):
    async def refuse(*_):
        raise StoreUnavailable("away")

    monkeypatch.setattr(store.snapshots, "read", refuse)
    async with following(feeds, site_of("10.0.0.1:8000"), 7):
        await until(lambda: feeds.running)

    assert made[0].restored is None


async def test_switched_off_there_is_no_feed(feeds, made, site_of):
    async with following(feeds, site_of("10.0.0.1:8000", kv_events="off"), 7) as task:
        await asyncio.wait_for(asyncio.shield(task), 10)

    assert made == []


async def test_an_engine_is_followed_while_its_feed_has_a_source(feeds, made, site_of, until):
    assert not feeds.followed("pod/default/a")
    async with following(feeds, site_of("10.0.0.1:8000"), 7):
        await until(lambda: feeds.followed("pod/default/a"))
        made[0].source = None
        assert not feeds.followed("pod/default/a")

    assert feeds.running == {}


async def test_counts_outlive_their_feeds(feeds, made, site_of, until):
    for life in (7, 8):
        async with following(feeds, site_of("10.0.0.1:8000"), life):
            await until(lambda life=life: life in feeds.running and feeds.running[life].feed.counts.batches)

    assert feeds.counts().batches == 2


async def test_a_feed_that_ends_late_does_not_hide_its_successor(feeds, made, site_of, until):
    site = site_of("10.0.0.1:8000")
    async with following(feeds, site, 7) as former:
        await until(lambda: 7 in feeds.running)
        async with following(feeds, site, 8):
            await until(lambda: 8 in feeds.running)
            former.cancel()
            await until(former.done)

            assert list(feeds.running) == [8]
