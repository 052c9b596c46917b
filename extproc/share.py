"""States this instance's requests in flight to the store, and brings the other instances' counts.

Counts are stated whole and under a lease: what gets lost is said again, and what a crashed instance had
stated runs out by itself.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Never

from extproc.reservations import Reservations
from extproc.state.store import Store, StoreError, Totals, backoff_s

log = logging.getLogger("kvoy.share")

_LEASE_S = 5.0
"""How long a statement stands without another one."""
_COALESCE_S = 0.010
"""How long changes are gathered before they are stated."""
_REFRESH_S = 0.05
"""How often the totals are asked for, and the lease renewed, while our own counts stand still."""
_FAREWELL_S = 0.5
"""Longest time spent on giving up the lease."""


class Share:
    """The loop between `Reservations` and the store."""

    def __init__(
        self,
        store: Store,
        reservations: Reservations,
        instance: str,
        clock: Callable[[], float],
    ) -> None:
        """`instance` names one life of one worker, unique in the group; `clock` gives monotonic seconds."""
        self._store = store
        self._reservations = reservations
        self._instance = instance
        self._clock = clock
        self._changed = asyncio.Event()
        self._failures = 0
        self._answered = clock()
        reservations.watch(self._changed.set)

    async def run(self) -> Never:
        """State the counts until cancelled, then withdraw them."""
        try:
            while True:
                await self._state()
                await self._pause()
        finally:
            await self._leave()

    async def _state(self) -> None:
        self._changed.clear()
        stated = self._reservations.counts()
        try:
            totals = await self._store.state_inflight(self._instance, int(_LEASE_S * 1000), stated)
        except StoreError as error:
            self._failed(error)
        else:
            self._succeeded(stated, totals)

    async def _pause(self) -> None:
        if self._failures:
            await asyncio.sleep(backoff_s(self._failures))
            return
        try:
            async with asyncio.timeout(_REFRESH_S):
                await self._changed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_COALESCE_S)

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._store.drop_instance(self._instance)
        except (StoreError, TimeoutError) as error:
            log.warning("left without withdrawing the counts, they run out within %g s: %s", _LEASE_S, error)

    def _succeeded(self, stated: Mapping[str, int], totals: Totals) -> None:
        if self._failures:
            log.info("counts of requests in flight are shared again")
        elif self._answered and not totals.known:
            log.warning("the store had dropped our counts (lease run out, or emptied): stated again")
        self._failures = 0
        self._answered = self._clock()
        self._reservations.absorb(stated, totals.pods)

    def _failed(self, error: StoreError) -> None:
        if not self._failures:
            log.warning("counts of requests in flight are not shared: %s", error)
        self._failures += 1
        if self._clock() - self._answered > _LEASE_S:
            # Counts this old would keep steering away from pods that have long been idle.
            self._reservations.absorb({}, {})
