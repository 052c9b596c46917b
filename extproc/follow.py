"""Follows the live stream and the cache stream, and keeps this worker's replicas by them.

Requests in flight go to `reservations`, engines to `engines`, changes of who has which blocks to `holdings`.
Lives that `holdings` begins to know are recovered from their snapshots. Whatever happens to the store, the
loop goes on; what may have been missed is recovered from snapshots that were written later.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Never

from extproc.cache.frames import FramesCorrupt
from extproc.cache.holdings import Holdings
from extproc.recover import recover
from extproc.reservations import SILENCE_S, Reservations
from extproc.sequences import Sequences, Turn
from extproc.state.engines import Engines
from extproc.state.live import Engine, Statement
from extproc.state.store import Entry, Positions, Store, StoreError, StoreUnavailable, backoff_s
from extproc.state.store.streams import CACHE_RETENTION_S, START, moment_ms, order

log = logging.getLogger("kvoy.follow")

_BLOCK_MS = 500
"""How long one read waits while the streams are quiet."""
_POLL_S = 0.005
"""Between two reads while the streams are busy: one wakeup then brings many entries."""
_BUSY_PER_S = 200.0
"""Entries per second from which on the streams are polled."""
_LOOK_S = 1.0
"""How often the ends of the streams are looked at, and old things forgotten."""
_SETTLE_S = 12.0
"""From a gap to the recovery: by then the collectors have written snapshots that contain what was missed."""
_ECHO_MS = 5000
"""After a recovery: how long our own changes are applied again, since it may have undone them."""
_TOGETHER = 32
"""Entries taken without letting others run."""


class Follow:
    """The loop from the streams to the replicas."""

    def __init__(
        self,
        store: Store,
        holdings: Holdings,
        reservations: Reservations,
        engines: Engines,
        instance: str,
        clock: Callable[[], float],
        settle_s: float = _SETTLE_S,
    ) -> None:
        """`instance` is the name under which this worker publishes, `clock` gives monotonic seconds.

        `settle_s` passes from a gap to the recovery of what was missed.
        """
        self._store = store
        self._holdings = holdings
        self._reservations = reservations
        self._engines = engines
        self._instance = instance
        self._clock = clock
        self._settle_s = settle_s
        self._positions: Positions | None = None
        """Up to where the streams have been read; None before the first contact."""
        self._sequences = Sequences()
        self._recovered: frozenset[int] = frozenset()
        """Lives whose snapshots were loaded, or that had none."""
        self._recover_at = float("inf")
        """When to recover every life, because something was missed."""
        self._again: dict[int, float] = {}
        """Lives without a snapshot, and when to look for it again."""
        self._bare: frozenset[int] = frozenset()
        """Lives for which it was looked again, or will be."""
        self._echo_until_ms = 0
        """Up to this moment (Redis clock) our own changes are applied again."""
        self._ahead_s = 0.0
        """Redis clock less ours."""
        self._looked = clock()
        self._count = 0
        """Entries read since then."""
        self._busy = False
        self._pause_s = 0.0
        self._failures = 0
        self._answered = clock()
        self._complete = asyncio.Event()
        self._work = asyncio.Event()
        """There are changes to apply."""
        holdings.watch(self._work.set)
        self.connected = False
        """The last operation reached the store."""
        self.lag_s = 0.0
        """Age of the newest entry of the last read; 0 if there was none."""
        self.gaps = 0
        """How often something was missed."""
        self.reloads = 0
        """How often every life was recovered, the first time included."""
        self.unreadable = 0
        """Entries left out because they are no values of this schema."""

    async def complete(self) -> None:
        """Return once everything is applied that the store tells of the lives `holdings` knew at first."""
        await self._complete.wait()

    def stale_s(self) -> float:
        """Seconds since the store last answered, or since the start if it never did."""
        return self._clock() - self._answered

    async def run(self) -> None:
        """Follow the streams until cancelled, whatever happens to the store."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._apply())

    async def _follow(self) -> Never:
        while True:
            # Also while the store is away: what is not heard any more must not steer.
            self._reservations.forget_silent()
            try:
                await self._round()
            except StoreError as error:
                self._failed(error)
            await asyncio.sleep(backoff_s(self._failures) or self._pause_s)

    async def _apply(self) -> Never:
        while True:
            self._work.clear()
            await self._drain()
            await self._work.wait()

    async def _drain(self) -> None:
        while self._holdings.step():  # noqa: ASYNC110 - it is this loop that does the work
            await asyncio.sleep(0)

    async def _round(self) -> None:
        positions = self._positions
        if positions is None or self._clock() - self._looked >= _LOOK_S:
            first = positions is None
            positions = await self._look(positions)
            if first:
                # What the collectors say of the engines names the lives that are to be recovered.
                positions = await self._overhear(positions)
        self._positions = positions = await self._recover(positions)
        read = await self._store.streams.read(positions, 0 if self._busy else _BLOCK_MS)
        self._reached()
        self._count += read.total
        self.unreadable += read.unreadable
        self._pause_s = _POLL_S if self._busy and not read.full else 0.0
        self._positions = read.positions
        self._hear(read.statements)
        self._note_lag(read.positions if read.total else None)
        for number, entry in enumerate(read.changes, 1):
            self._take(entry)
            if number % _TOGETHER == 0:
                await asyncio.sleep(0)

    async def _look(self, positions: Positions | None) -> Positions:
        """See where the streams end and how busy they are; returns from where to read on."""
        ends = await self._store.streams.ends()
        now = self._clock()
        self._ahead_s = ends.now_ms / 1000 - now
        if positions is not None and self.stale_s() > CACHE_RETENTION_S / 2:
            self._miss("the store was away for longer than it retains changes")
        self._reached()
        self._busy = self._count > _BUSY_PER_S * (now - self._looked)
        self._looked, self._count = now, 0
        self._sequences.forget(now)
        self._engines.forget()
        believed = f"{ends.now_ms - int(SILENCE_S * 1000)}-0"
        live, cache = positions or (believed, ends.positions.cache)
        # A stream that ends before our position was begun anew.
        if order(live) > order(ends.positions.live):
            live = believed
        if order(cache) > order(ends.positions.cache):
            cache = START
            # Changes that not all had read are lost to some: all take over what the collectors know.
            self._miss("the store was emptied")
        return Positions(live, cache)

    async def _recover(self, positions: Positions) -> Positions:
        """Bring in what the store tells of lives that are new here, or of all lives after a gap."""
        now = self._clock()
        everything = not self._complete.is_set() or now >= self._recover_at
        lives = frozenset(self._holdings.lives)
        due = {life for life, at in self._again.items() if now >= at}
        self._again = {life: at for life, at in self._again.items() if life in lives - due}
        self._recovered = frozenset() if everything else (self._recovered & lives) - due
        if lives == self._recovered and not everything:
            return positions
        bare: set[int] = set()
        missing = lives - self._recovered
        async for number in recover(self._store, self._holdings, missing, positions.cache, bare):
            if number % _TOGETHER == 0:
                await self._drain()
                positions = await self._overhear(positions)
        await self._drain()
        self._recovered = lives
        self._look_again(bare, lives)
        self._echo_until_ms = int((self._clock() + self._ahead_s) * 1000) + _ECHO_MS
        if everything:
            self._everything_recovered(len(lives))
        return positions

    def _look_again(self, bare: set[int], lives: frozenset[int]) -> None:
        """Once more, when their collectors have surely written them: after a loss there are none at first."""
        at = self._clock() + self._settle_s
        self._again |= dict.fromkeys(bare - self._bare, at)
        self._bare = (self._bare | bare) & lives

    def _everything_recovered(self, lives: int) -> None:
        log.info("recovered what is known of the caches of %d engines", lives)
        self.reloads += 1
        self._recover_at = float("inf")
        self._complete.set()

    async def _overhear(self, positions: Positions) -> Positions:
        """During a recovery: follow the live stream all the same."""
        statements, position = await self._store.streams.statements(positions.live)
        self._reached()
        self._hear(statements)
        return positions._replace(live=position)

    def _hear(self, statements: Sequence[Statement]) -> None:
        for statement in statements:
            if isinstance(statement, Engine):
                self._engines.observe(statement)
            elif statement.instance != self._instance:
                self._reservations.absorb(statement)

    def _take(self, entry: Entry) -> None:
        turn = self._sequences.take(entry.producer, entry.sequence, self._clock())
        if turn is Turn.AGAIN:
            return
        if turn is Turn.GAP:
            self._miss(f"{entry.producer} has published changes that were not read")
        if entry.producer == self._instance and moment_ms(entry.position) > self._echo_until_ms:
            return
        try:
            self._holdings.receive(entry.frames)
        except FramesCorrupt:
            self.unreadable += 1

    def _miss(self, why: str) -> None:
        self.gaps += 1
        if self._recover_at == float("inf"):
            log.info("recovering what is known of caches in %g s: %s", self._settle_s, why)
            self._recover_at = self._clock() + self._settle_s

    def _note_lag(self, read: Positions | None) -> None:
        if read is None:
            self.lag_s = 0.0
        else:
            newest_ms = max(moment_ms(position) for position in read)
            self.lag_s = max(0.0, self._clock() + self._ahead_s - newest_ms / 1000)

    def _reached(self) -> None:
        if self._failures:
            log.info("following the streams again")
        self._failures = 0
        self._answered = self._clock()
        self.connected = True

    def _failed(self, error: StoreError) -> None:
        if not self._failures:
            log.warning("the streams are not followed: %s", error)
        self._failures += 1
        # Who has been away must see whether the streams are still the same.
        self._looked = float("-inf")
        self.connected = not isinstance(error, StoreUnavailable)
