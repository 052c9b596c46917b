"""Gives the blocks of computed prompts to other engines, and takes them back in time."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.engine.batch import Prefilled
from benchmarks.engine.cache import BlockHash, Lease
from benchmarks.engine.runtime import Clock, Keep, Runtime
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.counters import TransferCounters
from benchmarks.engine.transfer.part import Part, fingerprint
from benchmarks.engine.transfer.shelf import Kept, Shelf


class Dock:
    """What this engine holds for others."""

    def __init__(
        self, settings: EngineSettings, runtime: Runtime, counters: TransferCounters, clock: Clock
    ) -> None:
        self.engine_id = settings.engine_id or settings.name
        self.served = 0
        """Prompts that other engines have fetched."""
        self.prefills = 0
        """Requests open now whose prompt is for another engine."""
        self._runtime = runtime
        self._counters = counters
        self._clock = clock
        self._forget_after_s = settings.transfer_timeout_s
        self._shelf = Shelf()
        self._waiters: dict[str, list[asyncio.Future[Kept]]] = {}
        self._sending = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def leases(self) -> int:
        """Prompts whose blocks are held for other engines now, on their way or not."""
        self.expire()
        return len(self._shelf) + self._sending

    @property
    def sending(self) -> int:
        """Prompts on their way to other engines now."""
        return self._sending

    @property
    def awaited(self) -> int:
        """Decode engines that wait now for prompts that are not computed yet."""
        return sum(len(waiters) for waiters in self._waiters.values())

    @contextmanager
    def open(self, part: Part) -> Iterator[None]:
        """While a request is carried out."""
        self.prefills += part.is_prefill
        try:
            yield
        finally:
            self.prefills -= part.is_prefill

    def keeper(self, key: str, seconds: float) -> Keep:
        """What keeps the blocks of a request for whoever asks for ``key`` in time."""

        def keep(lease: Lease, prefilled: Prefilled) -> None:
            self.put(key, lease, prefilled, seconds)

        return keep

    def put(self, key: str, lease: Lease, prefilled: Prefilled, seconds: float) -> Kept:
        """Keep blocks for so long, or give them to who waits for them."""
        job = prefilled.job
        kept = Kept(key, lease, fingerprint(job.root, job.prompt), self._clock() + seconds)
        waiter = next((waiter for waiter in self._waiters.get(key, ()) if not waiter.done()), None)
        if waiter is not None:
            self._sending += 1
            waiter.set_result(kept)
            return kept
        unneeded = self._shelf.put(kept)
        if unneeded is not None:
            self._free(unneeded)
        self.expire()
        return kept

    async def take(self, key: str, waits: bool) -> Kept | None:
        """The blocks kept under ``key``, until `sent`; None if there are none and it does not wait."""
        self.expire()
        kept = self._shelf.take(key)
        if kept is not None:
            self._sending += 1
            return kept
        return await self._wait(key) if waits else None

    def sent(self, kept: Kept, whole: bool) -> None:
        """The other engine has read the blocks, or some of them and has left."""
        self._sending -= 1
        self.served += whole
        self._free(kept)

    def release(self, key: str) -> None:
        """The other engine wants no blocks of this name, now or later."""
        kept = self._shelf.take(key)
        if kept is None:
            self._refuse(key)
        else:
            self._free(kept)

    def discard(self, kept: Kept) -> None:
        """Give blocks back that nobody has come for; others are left alone."""
        if self._shelf.discard(kept):
            self._free(kept)

    def known(self, hashes: Sequence[BlockHash]) -> int:
        """How many of these blocks, from the first on, are in the cache."""
        return self._runtime.batch.blocks.known(hashes)

    def expire(self) -> None:
        """Give back what nobody has come for, and set the timer for the next one."""
        for kept in self._shelf.expire(self._clock()):
            self._counters.expired()
            self._free(kept)
        self.close()
        if self._shelf.next_at is not None:
            delay = max(0.0, self._shelf.next_at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self.expire)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _wait(self, key: str) -> Kept:
        waiter: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, []).append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.sent(waiter.result(), whole=False)
            else:
                self._refuse(key)
            raise
        finally:
            self._waiters[key].remove(waiter)
            if not self._waiters[key]:
                del self._waiters[key]

    def _refuse(self, key: str) -> None:
        self._shelf.refuse(key, self._clock() + self._forget_after_s)

    def _free(self, kept: Kept) -> None:
        kept.gone.set()
        self._runtime.drop(kept.lease)
