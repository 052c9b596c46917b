"""Writes cache snapshots of the engines that are ours, from which starting workers continue."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Never

from extproc.cache.frames import Namespace
from extproc.cache.snapshots import encode
from extproc.collect.feeds import Feeds
from extproc.collect.ownership import Ownership
from extproc.collect.prefixes import Prefixes
from extproc.state.store import Store, StoreError, Subject

log = logging.getLogger("kvoy.collector")

EVERY_S = 10.0
"""How often what has changed is written."""


class SnapshotWriter:
    """Both namespaces of our lives; its own loop (`run`) writes."""

    def __init__(self, store: Store, ownership: Ownership, prefixes: Prefixes, feeds: Feeds) -> None:
        self.written = 0
        """Snapshots written."""
        self._store = store
        self._ownership = ownership
        self._prefixes = prefixes
        self._feeds = feeds
        self._latest: dict[int, bytes] = {}
        """Life to its exact snapshot: a feed gives one only when it has changed."""
        self._unwritten: set[Subject] = set()
        self._hurry = asyncio.Event()
        self._failing = False

    def hurry(self) -> None:
        """Write now: what was stored is lost."""
        self._hurry.set()

    async def run(self) -> Never:
        """Write every `EVERY_S` until cancelled."""
        while True:
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            try:
                await self.write()
            except StoreError as error:
                if not self._failing:
                    log.warning("snapshots can not be written: %s", error)
                self._failing = True
            else:
                self._failing = False

    async def write(self) -> None:
        """Store what has changed or is missing, and let the rest live on; raises `StoreError`."""
        if not self._ownership.current:
            return
        # Whatever our feeds have published up to here is in what they hold.
        position = (await self._store.streams.ends()).positions.cache
        lives = self._feeds.running.keys()
        self._latest = {life: raw for life, raw in self._latest.items() if life in lives}
        subjects = _of(Namespace.KV, lives) | _of(Namespace.PREFIX, self._prefixes.lives)
        self._unwritten = (self._unwritten & subjects) | await self._store.snapshots.keep(sorted(subjects))
        for subject in sorted(subjects):
            if subject.namespace == Namespace.KV:
                await self._write_kv(subject, position)
            else:
                await self._write_prefix(subject)

    async def _write_kv(self, subject: Subject, position: str) -> None:
        following = self._feeds.running.get(subject.life)
        if following is None:
            return
        if fresh := following.feed.snapshot(position):
            self._latest[subject.life] = fresh
            self._unwritten.add(subject)
        if subject in self._unwritten:
            await self._store_one(subject, self._latest.get(subject.life) or following.restored)

    async def _write_prefix(self, subject: Subject) -> None:
        life = subject.life
        if life in self._prefixes.dirty:
            self._prefixes.dirty.discard(life)
            self._unwritten.add(subject)
        if subject in self._unwritten and life in self._prefixes.lives:
            snapshot = self._prefixes.snapshot(life)
            await self._store_one(subject, encode(snapshot) if snapshot.young or snapshot.old else None)

    async def _store_one(self, subject: Subject, raw: bytes | None) -> None:
        if raw is not None:
            await self._store.snapshots.write(subject, raw)
            self.written += 1
        self._unwritten.discard(subject)


def _of(namespace: Namespace, lives: Iterable[int]) -> set[Subject]:
    return {Subject(namespace, life) for life in lives}
