"""States this worker's requests in flight to the other workers.

Statements are absolute: changed endpoints are stated at once, everything once a second. So whatever gets
lost is said again, and what a crashed worker had stated is believed only as long as `SILENCE_S`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Never

from extproc.reservations import SILENCE_S, Reservations
from extproc.state.live import InFlight
from extproc.state.store import Store, StoreError, backoff_s

log = logging.getLogger("kvoy.share")

_WHOLE_S = 1.0
"""How often everything is stated."""
_SHORTEST_S, _LONGEST_S = 0.002, 0.010
"""Between two statements; the shorter one after a quiet moment, doubling while changes keep coming."""
_FAREWELL_S = 0.5
"""Longest time spent on saying that this worker leaves."""


class Share:
    """The loop that publishes `Reservations`."""

    def __init__(
        self,
        store: Store,
        reservations: Reservations,
        instance: str,
        clock: Callable[[], float],
    ) -> None:
        """`instance` names one life of one worker, unique in the group; `clock` is that of `reservations`."""
        self._store = store
        self._reservations = reservations
        self._instance = instance
        self._clock = clock
        self._changed: set[str] = set()
        """Endpoint keys whose load is not what was stated last."""
        self._wake = asyncio.Event()
        self._whole_at = clock()
        self._gap_s = _SHORTEST_S
        self._failures = 0
        reservations.watch(self._note)

    async def run(self) -> Never:
        """State what is in flight until cancelled, then that nothing is."""
        try:
            while True:
                await self._change()
                await self._state()
                await self._gather()
        finally:
            await self._leave()

    def _note(self, endpoint: str) -> None:
        self._changed.add(endpoint)
        self._wake.set()

    async def _change(self) -> None:
        """Wait until there is something to state."""
        due = self._reservations.next_due()
        until = self._whole_at if due is None else min(due, self._whole_at)
        try:
            async with asyncio.timeout(until - self._clock()):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _state(self) -> None:
        self._reservations.settle()
        changed, self._changed = self._changed, set()
        self._wake.clear()
        whole = self._clock() >= self._whole_at
        if not (whole or changed):
            return
        own = self._reservations
        loads = own.counts() if whole else {key: own.own(key) for key in changed}
        try:
            await self._store.streams.state([InFlight(self._instance, loads, whole)])
        except StoreError as error:
            self._failed(error)
        else:
            self._stated(whole)

    async def _gather(self) -> None:
        """Let changes gather, the longer the busier it is."""
        await asyncio.sleep(backoff_s(self._failures) or self._gap_s)
        self._gap_s = min(2 * self._gap_s, _LONGEST_S) if self._changed else _SHORTEST_S

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._store.streams.state([InFlight(self._instance, {}, whole=True)])
        except (StoreError, TimeoutError) as error:
            log.warning("left without saying so, the other workers notice within %g s: %s", SILENCE_S, error)

    def _stated(self, whole: bool) -> None:
        if self._failures:
            log.info("requests in flight are shared again")
        self._failures = 0
        if whole:
            self._whole_at = self._clock() + _WHOLE_S

    def _failed(self, error: StoreError) -> None:
        if not self._failures:
            log.warning("requests in flight are not shared: %s", error)
        self._failures += 1
        # Nobody knows which statement was the last to arrive.
        self._whole_at = self._clock()
