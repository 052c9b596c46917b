"""Publishes what this worker learns of the engines' caches, so that the other workers know it too.

Each entry carries a sequence number. While the store is away the newest changes are kept, up to a bound; what
is dropped leaves a gap in the numbers, so that readers know that they have missed something.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Never, Protocol

from extproc.state.store import Store, StoreError, backoff_s

log = logging.getLogger("kvoy.teach")

_SHORTEST_S, _LONGEST_S = 0.005, 0.020
"""Between two entries; none before the first after a quiet moment, then doubling while there is more."""
_ENTRY_BYTES = 64 * 1024
"""Per entry (about): bounds the time that the store and its readers spend on one."""
_KEPT_BYTES = 1024 * 1024
"""While the store is away."""


class Outbox(Protocol):
    """Where the changes come from: `extproc.cache.holdings.Holdings`."""

    def take_outbox(self, limit_bytes: int) -> bytes:
        """Changes to publish, at most so many bytes (or one frame, if that is more); b"" for none."""

    def watch(self, changed: Callable[[], object]) -> None:
        """Call `changed` whenever there may be something to take."""


class Teach:
    """The loop that publishes an outbox."""

    def __init__(self, store: Store, outbox: Outbox, producer: str) -> None:
        """`producer` names one life of one process, unique in the group."""
        self._store = store
        self._outbox = outbox
        self._producer = producer
        self._wake = asyncio.Event()
        self._kept: deque[bytes] = deque()
        self._bytes = 0
        self._sequence = 1
        """Of the first entry that is kept."""
        self._failures = 0
        self.dropped = 0
        """Entries that were never published."""
        outbox.watch(self._wake.set)

    async def run(self) -> Never:
        """Publish until cancelled, whatever happens to the store."""
        gap_s = _SHORTEST_S
        while True:
            self._wake.clear()
            self._collect()
            if self._kept:
                await self._publish()
                await asyncio.sleep(backoff_s(self._failures) or gap_s)
                gap_s = min(2 * gap_s, _LONGEST_S)
            else:
                await self._wake.wait()
                gap_s = _SHORTEST_S

    def _collect(self) -> None:
        """Take what there is, into as few entries as possible; of too much, drop the oldest."""
        while taken := self._outbox.take_outbox(_ENTRY_BYTES):
            self._bytes += len(taken)
            # The first entry may have been published already, without us knowing.
            if len(self._kept) > 1 and len(self._kept[-1]) + len(taken) <= _ENTRY_BYTES:
                taken = self._kept.pop() + taken
            self._kept.append(taken)
        while self._bytes > _KEPT_BYTES:
            self._advance()
            self.dropped += 1

    async def _publish(self) -> None:
        try:
            while self._kept:
                await self._store.streams.publish(self._producer, self._sequence, self._kept[0])
                self._published()
        except StoreError as error:
            self._failed(error)

    def _advance(self) -> None:
        self._bytes -= len(self._kept.popleft())
        self._sequence += 1

    def _published(self) -> None:
        if self._failures:
            log.info("what is learnt of caches is shared again")
        self._failures = 0
        self._advance()

    def _failed(self, error: StoreError) -> None:
        if not self._failures:
            log.warning("what is learnt of caches is not shared: %s", error)
        self._failures += 1
