"""The exact index of one engine: its KV events in, frames of the cache stream out."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Never

import aiohttp
import msgspec

from extproc.cache import snapshots
from extproc.collect.kv import events
from extproc.collect.kv.discover import NoSource, Source, discover
from extproc.collect.kv.ledger import Ledger
from extproc.collect.kv.replay import Silent, replay
from extproc.collect.kv.sequence import Repetition, Sequence, Verdict
from extproc.collect.kv.sockets import Sockets, Unreachable
from extproc.collect.kv.subscribe import Message, Subscription
from extproc.collect.kv.target import Target

log = logging.getLogger("kvoy.collect.kv")

Publish = Callable[[bytes], None]
"""Takes packed frames (`extproc.cache.frames`), which name their life; must not block."""

_WORK = 256
"""Blocks after which the loop is left to others."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a feed waits, in seconds."""

    settle_s: float = 0.5
    """For the first batch; then what was published while connecting is asked for."""
    probe_s: float = 5.0
    """For a batch; then the engine is asked whether one was missed."""
    answer_s: float = 2.0
    """For a word of an answer; engines begin within 0.1 s."""
    retry_s: float = 30.0
    """With an engine that has no events, or does not repeat them."""


@dataclass(slots=True)
class Counts:
    """What happened on a feed since it began; only grows, `lag_s` excepted."""

    batches: int = 0
    """Event batches applied."""
    blocks: int = 0
    """Blocks that those stored or removed."""
    orphans: int = 0
    """Blocks among them not counted because nothing is known of the block before them."""
    skipped: int = 0
    """Events that were not understood."""
    gaps: int = 0
    """How often published batches did not arrive."""
    replays: int = 0
    """How often the engine repeated batches that were missing."""
    clears: int = 0
    """How often everything known of the engine was dropped, the engine's own clearing excepted."""
    lag_s: float = 0.0
    """Seconds between the engine's time stamp of the latest published batch and now, by both clocks."""


class KvFeed:
    """Follows one `Target`; its own loop (`run`) is the only writer."""

    def __init__(
        self,
        target: Target,
        publish: Publish,
        http: aiohttp.ClientSession,
        sockets: Sockets,
        clock: Callable[[], float],
        patience: Patience = Patience(),
    ) -> None:
        """`clock` gives seconds since 1970, as the engine's time stamps do."""
        self._target = target
        self._publish = publish
        self._http = http
        self._sockets = sockets
        self._clock = clock
        self._patience = patience
        self._ledger = Ledger(target.life, target.secret)
        self._sequence = Sequence()
        self._continues = False
        self._stored: tuple[int, int] | None = None
        self._trouble: str | None = None
        self._mute_until = 0.0
        self._worked = 0
        self.counts = Counts()
        self.source: Source | None = None
        """Where the events come from; None while there is none."""

    @property
    def blocks(self) -> int:
        """Blocks that the engine is known to hold."""
        return len(self._ledger)

    @property
    def block_size(self) -> int | None:
        """Tokens per block as the events tell; None before the first."""
        return self._ledger.block_size

    def restore(self, stored: bytes) -> bool:
        """Continue from another collector's `snapshot`; call it before `run`.

        False, and nothing happens, where the bytes are no snapshot of a feed.
        """
        try:
            snapshot = snapshots.decode(stored)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        if not isinstance(snapshot, snapshots.KvSnapshot):
            return False
        self._ledger.restore(snapshot)
        self._sequence = Sequence(snapshot.sequence + 1)
        self._continues = True
        self._stored = self._state
        return True

    def snapshot(self, position: str) -> bytes | None:
        """Everything known, stored (`extproc.cache.snapshots`); None if unchanged since the last call.

        `position` is the id of an entry of the cache stream up to which every entry of this feed is included:
        the last one that the store acknowledged.
        """
        if self._state == self._stored:
            return None
        self._stored = self._state
        return snapshots.encode(self._ledger.snapshot(position, self._sequence.next - 1))

    async def run(self) -> Never:
        """Follow the engine until cancelled, whatever happens to it."""
        if not self._continues:
            self._forget()
            self._flush()
        while True:
            try:
                await self._follow(await discover(self._http, self._target))
            except NoSource as error:
                # Only exact matching needs events, and most engines run without.
                self._say(str(error), logging.INFO)
            except Unreachable as error:
                self._say(str(error))
            await asyncio.sleep(self._patience.retry_s)

    @property
    def _state(self) -> tuple[int, int]:
        return self._sequence.next, self.counts.clears

    async def _follow(self, source: Source) -> Never:
        """Subscribed first, so that nothing falls between what is repeated and what is heard."""
        subscription = Subscription(self._sockets, source.endpoint)
        self.source = source
        self._say(source.flaw)
        try:
            await self._catch_up()
            silence_s = self._patience.settle_s
            while True:
                messages = await subscription.receive(silence_s)
                if subscription.connected_anew():
                    self._mute_until = 0.0
                    await self._catch_up()
                for message in messages:
                    await self._hear(message)
                    await self._breathe()
                if not messages:
                    await self._catch_up()
                    silence_s = self._patience.probe_s
                self._flush()
        finally:
            self.source = None
            subscription.close()

    async def _hear(self, message: Message) -> None:
        batch = self._read(message)
        verdict = self._sequence.hear(message.seq, batch.at)
        self._act(verdict, batch)
        if verdict in (Verdict.MISSING, Verdict.RESTARTED):
            self.counts.gaps += verdict is Verdict.MISSING
            await self._catch_up()
            self._act(self._sequence.settle(message.seq, batch.at), batch)
        if batch.at:
            self.counts.lag_s = self._clock() - batch.at

    async def _catch_up(self) -> None:
        """Apply what the engine still has from the next batch on, as far as it answers."""
        address = None if self.source is None else self.source.replay
        if address is None or self._clock() < self._mute_until:
            return
        repetition = Repetition(self._sequence)
        try:
            while repetition.again(await self._repeat(address, repetition)):
                pass
        except Silent as error:
            self._say(str(error))
            self._mute_until = self._clock() + self._patience.retry_s
        else:
            self._say(None)
        self._flush()

    async def _repeat(self, address: str, repetition: Repetition) -> bool:
        """Apply an answer; whether it came to its end. Raises `Silent` if it never began."""
        answer = replay(self._sockets, address, repetition.start, self._patience.answer_s)
        before = self.counts.batches
        try:
            async with aclosing(answer) as messages:
                async for message in messages:
                    batch = self._read(message)
                    verdict = repetition.take(message.seq, batch.at)
                    self._act(verdict, batch)
                    if verdict in (Verdict.MISSING, Verdict.RESTARTED):
                        return False
                    await self._breathe()
        except Silent:
            if repetition.empty:
                raise
            return False
        finally:
            self.counts.replays += self.counts.batches > before
        return True

    def _act(self, verdict: Verdict, batch: events.Batch) -> None:
        if verdict in (Verdict.LOST, Verdict.RESTARTED):
            self._forget()
        if verdict in (Verdict.LOST, Verdict.APPLY):
            blocks = self._ledger.apply(batch.events)
            self._worked += blocks + 1
            self.counts.batches += 1
            self.counts.blocks += blocks
            self.counts.skipped += batch.skipped
            self.counts.orphans = self._ledger.orphans

    def _read(self, message: Message) -> events.Batch:
        """A batch that can not be read may have done anything: nothing is known after it.

        It is of no time, so that it is the same batch when repeated.
        """
        try:
            return events.decode(message.payload)
        except events.Malformed as error:
            self._say(f"batch {message.seq}: {error}")
            return events.Batch(0.0, [events.Cleared()], 1)

    def _forget(self) -> None:
        self._ledger.clear()
        self.counts.clears += 1

    async def _breathe(self) -> None:
        if self._worked >= _WORK:
            self._flush()
            await asyncio.sleep(0)

    def _flush(self) -> None:
        self._worked = 0
        if frames := self._ledger.take():
            self._publish(frames)

    def _say(self, trouble: str | None, level: int = logging.WARNING) -> None:
        """Log what is wrong once, and once that it no longer is."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.info("%s: KV events arrive in full", self._target.endpoint_key)
        else:
            log.log(level, "%s: KV events: %s", self._target.endpoint_key, trouble)
