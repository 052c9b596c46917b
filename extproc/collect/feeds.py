"""The feeds of all engines that are ours: each follows the KV events of one life of one engine."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial, reduce
from typing import NamedTuple

from extproc.cache.frames import Namespace
from extproc.collect.changes import Changes
from extproc.collect.connection import Connection
from extproc.collect.kv.feed import Counts, KvFeed
from extproc.collect.kv.sockets import Sockets
from extproc.collect.kv.target import Target
from extproc.collect.sites import Site
from extproc.state.snapshot import Endpoint
from extproc.state.store import Snapshots, StoreError, Subject

log = logging.getLogger("kvoy.collector")


class Following(NamedTuple):
    """A feed that runs."""

    life: int
    feed: KvFeed
    restored: bytes | None
    """The stored snapshot that it began with."""


class Feeds:
    """Runs feeds and knows those that run."""

    def __init__(
        self,
        snapshots: Snapshots,
        changes: Changes,
        sockets: Sockets,
        secret: Callable[[], Awaitable[bytes]],
        wall: Callable[[], float],
    ) -> None:
        """`secret` waits for the deployment's; `wall` gives seconds since 1970."""
        self._snapshots = snapshots
        self._changes = changes
        self._sockets = sockets
        self._secret = secret
        self._wall = wall
        self._running: dict[str, Following] = {}
        self._ended = Counts()

    @property
    def running(self) -> Mapping[int, Following]:
        """All feeds, by life of the engine."""
        return {one.life: one for one in self._running.values()}

    def followed(self, endpoint: str) -> bool:
        """Whether the KV events of an engine, by endpoint key, are followed."""
        running = self._running.get(endpoint)
        return running is not None and running.feed.source is not None

    def counts(self) -> Counts:
        """What happened on all feeds, those that ended included."""
        return reduce(_sum, (one.feed.counts for one in self._running.values()), self._ended)

    async def follow(self, site: Site, endpoint: Endpoint, life: int, connection: Connection) -> None:
        """Follow one life of an engine until cancelled, from where the collector before us stopped."""
        if site.server.kv_events == "off":
            return
        target = Target(
            endpoint_key=endpoint.key,
            life=life,
            pod_ip=site.ip,
            http_base_url=connection.base_url,
            rank=endpoint.rank or 0,
            engine=site.server.engine,
            configured=site.server.kv_events,
            secret=await self._secret(),
        )
        publish = partial(self._changes.publish, site.pod)
        feed = KvFeed(target, publish, connection.session, self._sockets, self._wall)
        stored = await self._stored(life)
        if stored is not None and not feed.restore(stored):
            log.warning("the stored snapshot of %s is unreadable: its blocks are learnt anew", endpoint.key)
            stored = None
        entry = self._running[endpoint.key] = Following(life, feed, stored)
        try:
            await feed.run()
        finally:
            self._ended = _sum(self._ended, feed.counts)
            if self._running.get(endpoint.key) is entry:
                del self._running[endpoint.key]

    async def _stored(self, life: int) -> bytes | None:
        subject = Subject(Namespace.KV, life)
        try:
            return (await self._snapshots.read([subject])).get(subject)
        except StoreError as error:
            log.warning("the blocks of an engine are learnt anew: %s", error)
            return None


def _sum(one: Counts, other: Counts) -> Counts:
    return Counts(
        batches=one.batches + other.batches,
        blocks=one.blocks + other.blocks,
        gaps=one.gaps + other.gaps,
        replays=one.replays + other.replays,
        clears=one.clears + other.clears,
    )
