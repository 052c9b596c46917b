"""Folds the workers' placements for the lives that are ours, so that snapshots of them can be written.

Workers say on the cache stream what they placed where; the collector that owns an engine keeps the sum. It
polls the stream instead of waiting on it: a snapshot may be seconds old.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Never

import msgspec

from extproc.cache import snapshots
from extproc.cache.frames import FramesCorrupt, Namespace, pack_all, unpack
from extproc.cache.holdings import Holdings
from extproc.cache.snapshots import PrefixSnapshot
from extproc.state.store import Entry, Store, StoreError, Subject, backoff_s
from extproc.state.store.streams import START, order

log = logging.getLogger("kvoy.collector")

_EVERY_S = 0.25
_ENTRIES = 256
"""Entries per read."""


class Prefixes:
    """What our engines hold in the `PREFIX` namespace; its own loop (`run`) is the only writer."""

    def __init__(
        self, store: Store, capacities: Callable[[], Mapping[int, int]], emptied: Callable[[], None]
    ) -> None:
        """`capacities` tells the lives that are ours, and bytes of prompts that each can hold.

        `emptied` is called when the store has lost what it had.
        """
        self.lives: frozenset[int] = frozenset()
        """Lives that are folded up to a moment ago."""
        self.dirty: set[int] = set()
        """Lives about which something was said since somebody cleared it here."""
        self._store = store
        self._capacities = capacities
        self._emptied = emptied
        self._holdings = Holdings()
        self._told: set[int] = set()
        """Lives about which something was said that is not applied yet."""
        self._folded: dict[int, str] = {}
        """Life to the position on the stream up to which it is folded."""
        self._failures = 0

    def snapshot(self, life: int) -> PrefixSnapshot:
        """Everything folded of one of the `lives`."""
        return self._holdings.snapshot(life, self._folded[life])

    async def run(self) -> Never:
        """Follow the stream until cancelled, whatever happens to the store."""
        while True:
            try:
                await self._follow()
            except StoreError as error:
                if not self._failures:
                    log.warning("placements are not followed: %s", error)
                self._failures += 1
            else:
                if self._failures:
                    log.info("placements are followed again")
                self._failures = 0
            await asyncio.sleep(_EVERY_S + backoff_s(self._failures))

    async def _follow(self) -> None:
        ends = await self._store.streams.ends()
        if any(order(position) > order(ends.positions.cache) for position in self._folded.values()):
            self._folded = dict.fromkeys(self._folded, START)
            self._emptied()
        await self._adopt(self._capacities())
        await self._settle()
        await self._fold(ends.positions.cache)
        self.lives = frozenset(self._folded)

    async def _adopt(self, capacities: Mapping[int, int]) -> None:
        """Take over the lives that became ours, as they are stored, and let go those that are no more."""
        for life in self._folded.keys() - capacities.keys():
            self._holdings.retire(life)
            del self._folded[life]
            self.lives -= {life}
        appeared = sorted(capacities.keys() - self._folded.keys())
        subjects = [Subject(Namespace.PREFIX, life) for life in appeared]
        stored = await self._store.snapshots.read(subjects)
        for subject in subjects:
            self._holdings.enroll(subject.life, capacities[subject.life])
            self._folded[subject.life] = self._restore(subject.life, stored.get(subject))

    def _restore(self, life: int, raw: bytes | None) -> str:
        """The position from which to fold."""
        if raw is None:
            return START
        try:
            snapshot = snapshots.decode(raw)
            order(snapshot.position)
        except (msgspec.DecodeError, ValueError):
            return START
        self._holdings.restore(life, snapshot)
        return snapshot.position

    async def _fold(self, until: str) -> None:
        """Apply to each life what was said of it since."""
        while order(after := min(self._folded.values(), key=order, default=until)) < order(until):
            entries, reached = await self._store.streams.between(after, until, _ENTRIES)
            since = {life: order(position) for life, position in self._folded.items()}
            for entry in entries:
                at = order(entry.position)
                self._receive(entry, {life for life, position in since.items() if position < at})
            await self._settle()
            # Only now is what was told in their snapshots.
            self.dirty |= self._told
            self._told.clear()
            behind = [life for life, position in self._folded.items() if order(position) < order(reached)]
            self._folded |= dict.fromkeys(behind, reached)

    async def _settle(self) -> None:
        more = True
        while more:
            more = self._holdings.step()
            await asyncio.sleep(0)

    def _receive(self, entry: Entry, lives: Collection[int]) -> None:
        try:
            told = [f for f in unpack(entry.frames) if f.namespace == Namespace.PREFIX and f.life in lives]
        except FramesCorrupt:
            return
        if told:
            self._holdings.receive(pack_all(told))
            self._told.update(frame.life for frame in told)
