"""Follows the store and always holds a whole snapshot.

Load everything, then follow the log; whatever does not fit (a gap, an unreadable entry, a store that was
emptied, restarted or replaced) leads back to a load. Until that succeeds the last snapshot is served.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Never

from extproc.state.fold import Gap, Records, fold
from extproc.state.records import Publication
from extproc.state.snapshot import EMPTY, Snapshot, compile_snapshot
from extproc.state.store import Head, Store, StoreCorrupt, StoreError, StoreUnavailable, backoff_s

log = logging.getLogger("kvoy.state")

_BLOCK_MS = 1000
"""How long one read of the log waits."""
_VERIFY_S = 1.0
"""How often the replica asks which generation is stored: finds what the log does not tell."""
_EMPTY_S = 0.1
"""How often an empty store is asked again before the first configuration."""


class Replica:
    """The configuration of this process; its own loop (`run`) is the only writer."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._store = store
        self._clock = clock
        self._records = Records()
        self._snapshot = EMPTY
        self._contacted = clock()
        self._failures = 0
        self._complete = asyncio.Event()
        self._watcher: Callable[[Snapshot], object] = _unwatched
        self.connected = False
        """The last operation reached the store."""
        self.reloads = 0
        """How often the whole configuration was loaded, the first time included."""
        self.gaps = 0
        """How often the log did not continue what was held."""

    @property
    def snapshot(self) -> Snapshot:
        """The latest complete generation; `EMPTY` before the first."""
        return self._snapshot

    def watch(self, changed: Callable[[Snapshot], object]) -> None:
        """Call `changed` with each new snapshot; if it raises ValueError, the snapshot is not adopted."""
        self._watcher = changed

    @property
    def ready(self) -> bool:
        """Whether a complete generation has been seen; stays True when the store goes away."""
        return self._snapshot is not EMPTY

    async def complete(self) -> None:
        """Return once `ready`."""
        await self._complete.wait()

    def stale_s(self) -> float:
        """Seconds since the store last answered, or since the start if it never did."""
        return self._clock() - self._contacted

    async def run(self) -> Never:
        """Follow the store until cancelled, whatever happens to it."""
        while True:
            try:
                await self._follow()
            except Gap as gap:
                self.gaps += 1
                log.info("loading the whole configuration: %s", gap)
            except StoreError as error:
                self._failed(error)
            await asyncio.sleep(backoff_s(self._failures))

    async def _follow(self) -> Never:
        position = await self._load()
        verified = self._clock()
        while True:
            entries = await self._store.configuration.tail(position, _BLOCK_MS)
            position = self._advance(position, entries)
            if self._clock() - verified >= _VERIFY_S:
                position = await self._verify(position)
                verified = self._clock()

    async def _load(self) -> str:
        while (stored := await self._store.configuration.load()) is None:
            self._reached()
            await asyncio.sleep(_EMPTY_S)
        self._hold(Records(stored.epoch, stored.generation, stored.records))
        self._reached()
        self.reloads += 1
        log.info("loaded generation %d: %d records", stored.generation, len(stored.records))
        return stored.position

    async def _verify(self, position: str) -> str:
        """Raises `Gap` when another configuration is stored than the log led to.

        An empty store is no reason to give up the one held.
        """
        head = await self._store.configuration.head()
        if head is None or head == self._head:
            return position
        entries = await self._store.configuration.tail(position, 0)
        if not entries:
            raise Gap(f"generation {head.generation} of epoch {head.epoch} is stored, not {self._head}")
        return self._advance(position, entries)

    @property
    def _head(self) -> Head:
        return Head(self._records.epoch, self._records.generation)

    def _advance(self, position: str, entries: Sequence[tuple[str, Publication]]) -> str:
        records = self._records
        for _, publication in entries:
            records = fold(records, publication)
        if records is not self._records:
            self._hold(records)
            log.debug("generation %d", records.generation)
        self._reached()
        return entries[-1][0] if entries else position

    def _hold(self, records: Records) -> None:
        try:
            snapshot = compile_snapshot(records.epoch, records.generation, records.by_key.values())
            self._watcher(snapshot)
        except ValueError as error:
            raise StoreCorrupt(f"generation {records.generation} can not be used: {error}") from error
        self._records, self._snapshot = records, snapshot
        self._complete.set()

    def _reached(self) -> None:
        if self._failures:
            log.info("following the store again, at generation %d", self._records.generation)
        self._contacted = self._clock()
        self._failures = 0
        self.connected = True

    def _failed(self, error: StoreError) -> None:
        if not self._failures:
            log.warning("%s; still serving generation %d", error, self._records.generation)
        self._failures += 1
        self.connected = not isinstance(error, StoreUnavailable)


def _unwatched(_snapshot: Snapshot) -> None:
    """Nobody is told of snapshots."""
