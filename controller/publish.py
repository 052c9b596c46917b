"""Offers records to Envoy and publishes them to the store, in the order that breaks no request.

A worker may only choose what Envoy knows. So Envoy is offered the new records together with what workers
may still choose of the old ones; once it has taken them the difference goes to the store, as one step; and a
while later, when every worker has followed, Envoy is offered the new records alone.

The store is looked at twice a second. Emptied or set back, it gets everything again under a new epoch.
Another controller in the same group is an error that is reported, not fought over: the last edit stands.
"""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Never

from controller.changes import Records, describe, diff, leftovers
from extproc.state import keys
from extproc.state.records import Publication
from extproc.state.store import Head, Store, StoreCorrupt, Stored, StoreError, backoff_s

if TYPE_CHECKING:  # they cost a second to import, and only their types are needed here
    from controller.xds.resources import Resources
    from controller.xds.server import Ads

log = logging.getLogger("kvoy.controller")

LINGER_S = 5.0
"""How long Envoy keeps what was taken away, after the store has said so."""

_ACCEPT_S = 0.5
"""Longest wait for Envoy before publishing."""

_LOOK_S = 0.5
"""How often the store is looked at."""

_TRUCE_S = 60.0
"""A store taken over is not taken over again within this time: a rival is alive."""


class Meeting(Enum):
    """What it means to find another configuration in the store than the one known to be there."""

    OURS = auto()
    """Our own last publication, whose outcome was unknown."""
    SET_BACK = auto()
    """An earlier state of ours: the store has forgotten publications."""
    CONTINUED = auto()
    """Another controller has continued what we published."""
    REPLACED = auto()
    """A configuration of somebody else, or of an earlier time."""


def meeting(known: Head | None, attempt: Head | None, found: Head) -> Meeting:
    """Judge `found`, when `known` was stored and `attempt` was the last publication tried."""
    if found == attempt:
        return Meeting.OURS
    if known is None or found.epoch != known.epoch:
        return Meeting.REPLACED
    return Meeting.SET_BACK if found.generation < known.generation else Meeting.CONTINUED


class Publisher:
    """Brings the newest records into force; `run` is its only loop."""

    def __init__(
        self,
        store: Store,
        ads: "Ads",
        build: "Callable[[Records], Resources]",
        group: str,
        clock: Callable[[], float],
        new_epoch: Callable[[], str],
        linger_s: float = LINGER_S,
    ) -> None:
        """`clock` gives monotonic seconds, `new_epoch` a name never given before."""
        self._store = store
        self._ads = ads
        self._build = build
        self._group = group
        self._clock = clock
        self._new_epoch = new_epoch
        self._linger_s = linger_s
        self._wake = asyncio.Event()
        self._failures = 0
        self._wanted: Records | None = None
        self._served: Records | None = None
        """What workers hold; None until the store has been seen."""
        self._head: Head | None = None
        """What is stored and can be continued; None if only a whole configuration can follow."""
        self._attempt: Head | None = None
        self._generation = 0
        """The highest seen, which a new epoch must exceed."""
        self._offered: Records | None = None
        self._lingering: list[tuple[float, Records]] = []
        self._yielded: Records | None = None
        """Ours, while another controller's configuration is in force."""
        self._taken_over = float("-inf")
        self._refused: Records | None = None
        """What Envoy does not take."""

    @property
    def generation(self) -> int:
        """The generation in force; 0 before the first."""
        return self._generation if self._head is None else self._head.generation

    def apply(self, records: Records) -> None:
        """Bring `records`, a whole configuration, into force as soon as possible; the newest call wins."""
        self._wanted = dict(records)
        self._refused = None
        self._wake.set()

    async def run(self) -> Never:
        """Work until cancelled, whatever happens to the store."""
        while True:
            self._wake.clear()
            try:
                await self._round()
                self._reached()
            except StoreError as error:
                self._failed(error)
            await self._pause(backoff_s(self._failures) or _LOOK_S)

    async def _round(self) -> None:
        try:
            await self._look()
        finally:
            # With the store away Envoy is served all the same.
            target = self._target()
            if target is not None:
                self._offer(target)
        if target is not None and self._due(target):
            await self._publish(target)

    def _target(self) -> Records | None:
        """What shall be in force: without valid manifests that Envoy takes, what the store holds."""
        held_back = self._wanted is None or self._wanted == self._refused
        return self._served if held_back else self._wanted

    def _due(self, target: Records) -> bool:
        if self._head is None:
            return True
        return target not in (self._served, self._yielded)

    async def _look(self) -> None:
        """Find out what is stored, if it is not what was known."""
        found = await self._store.configuration.head()
        if found is None:
            if self._head is not None:
                log.warning("the store has lost the configuration: publishing all of it again")
            self._head = None
        elif found != self._head:
            stored = await self._load()
            self._generation = max(self._generation, found.generation, stored.generation if stored else 0)
            if stored is None:
                self._head = None
            elif self._served is None:
                log.info("the store holds generation %d", stored.generation)
                self._adopt(stored)
            else:
                self._meet(stored)

    async def _load(self) -> Stored | None:
        try:
            return await self._store.configuration.load()
        except StoreCorrupt as error:
            if not self._failures:
                log.error("%s; publishing a whole configuration in its place", error)
            return None

    def _meet(self, stored: Stored) -> None:
        head = Head(stored.epoch, stored.generation)
        seen = meeting(self._head, self._attempt, head)
        if seen is Meeting.SET_BACK:
            log.warning("the store went back to generation %d: publishing everything again", head.generation)
            self._head = None
        elif seen is Meeting.OURS or stored.records == self._target():
            self._adopt(stored)
        elif seen is Meeting.CONTINUED or self._clock() - self._taken_over < _TRUCE_S:
            log.error(
                "another controller publishes into group %r; its generation %d is in force until the "
                "manifests of this one change. Stop one of them, or give it another --group",
                self._group,
                head.generation,
            )
            self._adopt(stored)
            self._yielded = self._target()
        else:
            log.error(
                "another controller has published generation %d into group %r: replacing it. Stop one of "
                "them, or give it another --group",
                head.generation,
                self._group,
            )
            self._taken_over = self._clock()
            self._adopt(stored)
            self._head = None

    def _adopt(self, stored: Stored) -> None:
        """Continue from what is stored."""
        self._serve(stored.records)
        self._head = Head(stored.epoch, stored.generation)

    def _serve(self, records: Records) -> None:
        """Workers hold `records` from now on, and for a moment perhaps still what they held before."""
        if self._served is not None and self._served != records:
            self._lingering.append((self._clock() + self._linger_s, self._served))
        self._served = records

    def _offer(self, target: Records) -> None:
        """Offer Envoy what shall be in force, and what workers may still choose."""
        now = self._clock()
        self._lingering = [(until, old) for until, old in self._lingering if until > now]
        union = dict(target)
        for old in (*(old for _, old in self._lingering), self._served or {}):
            union = leftovers(old, target) | union
        if union != self._offered:
            self._ads.offer(self._build(union))
            self._offered = union

    async def _publish(self, target: Records) -> None:
        if not await self._ads.accepted(_ACCEPT_S):
            if self._ads.refused:
                self._hold_back(target)
                return
            log.warning(
                "Envoy has not taken the new configuration within %s s: publishing it anyway", _ACCEPT_S
            )
        whole = self._head is None
        epoch, last = self._head or Head(self._new_epoch(), self._generation)
        head = Head(epoch, last + 1)
        before = self._served or {}
        changes = diff({} if whole else before, target)
        self._attempt = head
        if not await self._store.configuration.publish(
            Publication(head.epoch, head.generation, changes, whole)
        ):
            return  # somebody else was faster: the next look finds out who
        self._serve(target)
        self._head = head
        self._generation = max(self._generation, head.generation)
        self._yielded = None
        log.info("generation %d: %s", head.generation, describe(before, diff(before, target)))

    def _hold_back(self, target: Records) -> None:
        """Workers must not choose what Envoy refuses; its reasons are in the log already."""
        staying = (
            f"generation {self.generation} stays in force" if self.generation else "nothing is published"
        )
        log.error("Envoy refuses the new configuration: %s until the manifests change", staying)
        self._refused = target
        self._wake.set()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _reached(self) -> None:
        if self._failures:
            log.info("the store is back; at generation %d", self.generation)
        self._failures = 0

    def _failed(self, error: StoreError) -> None:
        if not self._failures:
            remedy = f"delete {keys.config(self._group)} to publish anew"
            waiting = "Envoy is served all the same; publishing when the store is back"
            log.warning("%s; %s", error, remedy if isinstance(error, StoreCorrupt) else waiting)
        self._failures += 1
