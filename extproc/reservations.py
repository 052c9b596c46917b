"""Requests in flight: counted when an endpoint is chosen, released when the access log tells of the end.

Pure and synchronous: choosing and counting are one step, so a burst never chooses twice on the same count.
`share.py` states what is in flight to the other workers, `follow.py` brings what they state.
"""

import heapq
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import msgspec

from extproc.peers import NOTHING, Peers
from extproc.state.envoy import MAX_REQUEST_S
from extproc.state.live import InFlight, Load

LIFETIME_S = MAX_REQUEST_S + 10
"""When a reservation is surely lost: the longest life of a request, and time for its log entry to come."""
SILENCE_S = 5.0
"""What a worker stated is believed for so long after it was last heard: it states everything each second."""


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """One request on its way to an endpoint."""

    id: int
    """Unique within this instance; below 2**53, since Envoy carries it as a double."""
    endpoint: str
    """Key of the chosen endpoint."""
    address: str
    """``ip:port`` of the chosen endpoint."""
    server: str
    """Key of the ModelServer."""
    route: str
    """Key of the ModelRoute."""
    request_id: str
    """Envoy's id of the request; empty if it gave none."""
    made: float
    """When, on the clock of `Reservations`."""
    tokens: int = 0
    """Prompt tokens that the engine has to compute for it."""
    claim: object | None = None
    """What was assumed of the endpoint when it was chosen; nothing here looks into it."""


class _Due(NamedTuple):
    """When the prompt of a reservation is expected to be computed."""

    at: float
    id: int


class Reservations:
    """All requests in flight of this instance, and what the others state of theirs."""

    def __init__(self, clock: Callable[[], float], lifetime_s: float = LIFETIME_S) -> None:
        """`clock` gives monotonic seconds; `expire` drops what is older than `lifetime_s`."""
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._held: dict[int, Reservation] = {}
        self._by_request: dict[str, int] = {}
        self._computing: dict[int, Reservation] = {}
        """Those whose prompt tokens still count."""
        self._due: list[_Due] = []
        """A heap; what was released meanwhile is still in it."""
        self._own: dict[str, Load] = {}
        self._peers = Peers(self._add)
        self._all: dict[str, Load] = {}
        """Our own loads and the peers', so that a decision looks up each endpoint once."""
        self._last_id = 0
        self._changed: Callable[[str], object] = _unwatched

    def watch(self, changed: Callable[[str], object]) -> None:
        """Call `changed` (endpoint key), which must be cheap and never fail, after each change of a load."""
        self._changed = changed

    def reserve(
        self,
        *,
        endpoint: str,
        address: str,
        server: str,
        route: str,
        request_id: str = "",
        tokens: int = 0,
        prefill_s: float = 0.0,
        claim: object | None = None,
    ) -> Reservation:
        """Count one more request in flight to `endpoint`.

        Its `tokens` (prompt tokens that are not cached there) count as pending until they are expected to be
        computed, `prefill_s` from now, or until it is released.
        """
        self._last_id += 1
        now = self._clock()
        reservation = Reservation(
            self._last_id, endpoint, address, server, route, request_id, now, tokens, claim
        )
        self._held[reservation.id] = reservation
        if request_id:
            self._by_request[request_id] = reservation.id
        pending = tokens if prefill_s > 0 else 0
        if pending:
            self._compute(reservation, prefill_s)
        self._shift(endpoint, 1, pending)
        return reservation

    def get(self, reservation_id: int) -> Reservation | None:
        """A reservation that is held; None when it is not, or no longer, counted."""
        return self._held.get(reservation_id)

    def owe(self, reservation_id: int, tokens: int, prefill_s: float, claim: object | None) -> None:
        """Its engine has more to do than was thought: so many prompt tokens to compute, and another claim."""
        before = self._held.get(reservation_id)
        if before is None or reservation_id in self._computing:
            return
        reservation = msgspec.structs.replace(before, tokens=tokens, claim=claim)
        self._held[reservation_id] = reservation
        if tokens and prefill_s > 0:
            self._compute(reservation, prefill_s)
            self._shift(reservation.endpoint, 0, tokens)

    def release(self, reservation_id: int) -> Reservation | None:
        """Stop counting a request; None when it is not, or no longer, counted."""
        reservation = self._held.pop(reservation_id, None)
        if reservation is not None:
            if self._by_request.get(reservation.request_id) == reservation_id:
                del self._by_request[reservation.request_id]
            computing = self._computing.pop(reservation_id, None)
            self._shift(reservation.endpoint, -1, 0 if computing is None else -reservation.tokens)
        return reservation

    def release_request(self, request_id: str) -> Reservation | None:
        """As `release`, for the latest reservation of a request."""
        reservation_id = self._by_request.get(request_id)
        return None if reservation_id is None else self.release(reservation_id)

    def expire(self) -> list[Reservation]:
        """Drop and return, oldest first, what has outlived any request: its access-log entry is lost."""
        return self.abandon(self._clock() - self._lifetime_s)

    def abandon(self, until: float) -> list[Reservation]:
        """Drop and return, oldest first, what was reserved up to a time: nobody will tell of its end."""
        abandoned = []
        # Insertion order is the order of age.
        for reservation in self._held.values():
            if reservation.made > until:
                break
            abandoned.append(reservation)
        for reservation in abandoned:
            self.release(reservation.id)
        return abandoned

    def loads(self, endpoints: Iterable[str]) -> list[Load]:
        """What is on its way to each endpoint key: our own as of now, the others' as they last stated."""
        self.settle()
        known = self._all.get
        return [known(endpoint, NOTHING) for endpoint in endpoints]

    def load(self, endpoint: str) -> Load:
        """As `loads`, for one endpoint key."""
        return self.loads((endpoint,))[0]

    def counts(self) -> dict[str, Load]:
        """Our own load per endpoint key; endpoints without any are left out."""
        self.settle()
        return dict(self._own)

    def own(self, endpoint: str) -> Load:
        """Our own load on an endpoint key."""
        return self._own.get(endpoint, NOTHING)

    def settle(self) -> None:
        """Stop counting the tokens of prompts that are computed by now; whatever tells loads does so."""
        due = self._due
        if not due or due[0].at > (now := self._clock()):
            return
        while due and due[0].at <= now:
            reservation = self._computing.pop(heapq.heappop(due).id, None)
            if reservation is not None:
                self._shift(reservation.endpoint, 0, -reservation.tokens)

    def next_due(self) -> float | None:
        """When `settle` has something to do at the earliest, on the clock; None if nothing is pending."""
        return self._due[0].at if self._due else None

    def absorb(self, statement: InFlight) -> None:
        """Learn what another worker has in flight."""
        self._peers.absorb(statement, self._clock())

    def peers(self) -> Collection[str]:
        """The other workers, by instance, as far as they were heard lately."""
        return self._peers.instances

    def forget_silent(self) -> None:
        """Drop what workers stated that have not been heard for `SILENCE_S`; to be called every second."""
        self._peers.forget(self._clock() - SILENCE_S)

    def _compute(self, reservation: Reservation, prefill_s: float) -> None:
        self._computing[reservation.id] = reservation
        heapq.heappush(self._due, _Due(self._clock() + prefill_s, reservation.id))

    def _shift(self, endpoint: str, requests: int, tokens: int) -> None:
        before = self._own.get(endpoint, NOTHING)
        after = Load(before[0] + requests, before[1] + tokens)
        if after[0]:
            self._own[endpoint] = after
        else:
            del self._own[endpoint]
        self._add(endpoint, requests, tokens)
        self._changed(endpoint)

    def _add(self, endpoint: str, requests: int, tokens: int) -> None:
        before = self._all.get(endpoint, NOTHING)
        after = Load(before[0] + requests, before[1] + tokens)
        if after == NOTHING:
            del self._all[endpoint]
        else:
            self._all[endpoint] = after


def _unwatched(_endpoint: str) -> None:
    """Nobody is told of changes."""
