"""Publishes changes of the exact index on the cache stream: in order, each once, or visibly not at all."""

import asyncio
import logging
from collections import deque
from typing import NamedTuple, Never

from extproc.collect.ownership import Ownership
from extproc.state.store import StoreError, Streams, backoff_s

log = logging.getLogger("kvoy.collector")

_GATHER_S = 0.010
"""How long changes are gathered: an entry costs every reader 50 µs, whatever its size."""
_ENTRY_BYTES = 128 * 1024
"""Longest entry, about."""
QUEUE_BYTES = 4 * 2**20
"""Changes kept while the store is away. More is dropped: readers see that, and load the snapshots."""


class _Change(NamedTuple):
    pod: str
    frames: bytes


class Changes:
    """A queue to the cache stream; its own loop (`run`) empties it."""

    def __init__(self, streams: Streams, producer: str, ownership: Ownership) -> None:
        """`producer` names one life of this collector."""
        self.published = 0
        """Entries published."""
        self.dropped = 0
        """Bytes not published because the store was away for too long."""
        self._streams = streams
        self._producer = producer
        self._ownership = ownership
        self._queue: deque[_Change] = deque()
        self._queued = 0
        self._entry: bytes | None = None
        self._sequence = 1
        self._failures = 0
        self._some = asyncio.Event()

    def publish(self, pod: str, frames: bytes) -> None:
        """Queue changes of one of the pod's engines; never blocks."""
        self._queue.append(_Change(pod, frames))
        self._queued += len(frames)
        if self._queued > QUEUE_BYTES:
            self._drop()
        self._some.set()

    async def run(self) -> Never:
        """Publish until cancelled, whatever happens to the store."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_GATHER_S + backoff_s(self._failures))
            if self._ownership.current:
                try:
                    await self._flush()
                except StoreError as error:
                    self._failed(error)

    async def _flush(self) -> None:
        self._some.clear()
        try:
            while self._ownership.current and (entry := self._next()) is not None:
                await self._publish(entry)
        finally:
            if self._entry is not None or self._queue:
                self._some.set()

    async def _publish(self, entry: bytes) -> None:
        number = self._sequence
        await self._streams.publish(self._producer, number, entry)
        if self._sequence == number:  # nothing was dropped meanwhile
            self._entry = None
            self._sequence += 1
        self.published += 1
        if self._failures:
            log.info("changes of the exact index are published again")
        self._failures = 0

    def _next(self) -> bytes | None:
        """The next entry; one whose outcome is unknown stays the next, under its number."""
        taken: list[bytes] = []
        size = 0
        while self._entry is None and self._queue and size < _ENTRY_BYTES:
            change = self._queue.popleft()
            self._queued -= len(change.frames)
            if self._ownership.holds(change.pod):
                taken.append(change.frames)
                size += len(change.frames)
        if taken:
            self._entry = b"".join(taken)
        return self._entry

    def _drop(self) -> None:
        self.dropped += self._queued
        self._queue.clear()
        self._queued = 0
        # Whether or not the entry before was taken, a number is missing now. An empty entry shows that.
        self._sequence += 2
        self._entry = b""

    def _failed(self, error: StoreError) -> None:
        if not self._failures:
            log.warning("changes of the exact index can not be published: %s", error)
        self._failures += 1
