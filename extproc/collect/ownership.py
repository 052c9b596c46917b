"""Which pods this collector watches: each pod is one collector's, by a lease.

Whose turn it is follows from who is alive, without talk: every collector ranks all of them for each pod
(rendezvous hashing), so one that comes or goes moves only the pods that become or were its own. The lease
makes sure that two collectors that disagree about who is alive never both publish.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Never

import xxhash

from extproc.state.store import Leases, StoreError

log = logging.getLogger("kvoy.collector")

KIND = "collector"
"""Of leases and members in the store."""
LEASE_S = 3.0
"""How long a collector that is gone keeps its pods."""
RENEWAL_S = 0.5
"""How often membership and leases are renewed; a few renewals may fail."""
_MARGIN_S = 0.2
"""Clocks may differ by this much over one lease."""
_FAREWELL_S = 0.5
"""Longest time spent on giving up what is held."""


def share(pods: Collection[str], members: Collection[str], member: str) -> frozenset[str]:
    """Pure: the pods, of all `pods`, that are `member`'s while exactly `members` are alive."""
    return frozenset(pod for pod in pods if max(members, key=lambda m: _rank(m, pod)) == member)


def _rank(member: str, pod: str) -> tuple[int, str]:
    return xxhash.xxh3_64_intdigest(f"{member}\0{pod}".encode()), member


class Ownership:
    """The leases of one collector; its own loop (`run`) is the only writer."""

    def __init__(
        self,
        leases: Leases,
        member: str,
        pods: Callable[[], Collection[str]],
        adjust: Callable[[frozenset[str]], None],
        clock: Callable[[], float],
    ) -> None:
        """`pods` tells all pods that need a watcher, by key; `clock` gives monotonic seconds.

        `adjust` is told which pods are held whenever that was found out anew; a pod is missing there before
        anybody else may have it.
        """
        self._leases = leases
        self._member = member
        self._pods = pods
        self._adjust = adjust
        self._clock = clock
        self._held: frozenset[str] = frozenset()
        self._until = clock()
        self._failures = 0
        self.members: frozenset[str] = frozenset()
        """All collectors that were alive when the store was last asked."""

    @property
    def current(self) -> bool:
        """Whether the leases still run, by our own clock; later, somebody else may speak for the pods."""
        return self._clock() < self._until

    @property
    def owned(self) -> frozenset[str]:
        """Pods that are ours just now."""
        return self._held if self.current else frozenset()

    def holds(self, pod: str) -> bool:
        """Whether the pod is ours, or was when we last heard of the store (see `current`)."""
        return pod in self._held

    async def run(self) -> Never:
        """Claim, renew and hand over until cancelled, then give up everything."""
        try:
            while True:
                try:
                    await self._renew()
                except StoreError as error:
                    self._failed(error)
                await asyncio.sleep(RENEWAL_S)
        finally:
            await self._leave()

    async def _renew(self) -> None:
        asked = self._clock()
        self.members = await self._leases.appear(KIND, self._member, int(LEASE_S * 1000))
        wanted = share(self._pods(), self.members | {self._member}, self._member)
        surplus = self._held - wanted
        self._hold(self._held & wanted)
        await self._leases.release(KIND, self._member, surplus)
        held = await self._leases.claim(KIND, self._member, wanted, int(LEASE_S * 1000))
        self._until = asked + LEASE_S - _MARGIN_S
        self._hold(held)
        if self._failures:
            log.info("leases are renewed again: %d pods", len(held))
        self._failures = 0

    def _hold(self, pods: frozenset[str]) -> None:
        self._held = pods
        self._adjust(pods)

    def _failed(self, error: StoreError) -> None:
        if not self._failures:
            log.warning("leases are not renewed, in %g s nothing is published any more: %s", LEASE_S, error)
        self._failures += 1

    async def _leave(self) -> None:
        self._until = self._clock()
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._leases.disappear(KIND, self._member)
                await self._leases.release(KIND, self._member, self._held)
        except (StoreError, TimeoutError) as error:
            log.warning("left without giving up the leases, they run out within %g s: %s", LEASE_S, error)
