"""Requests in flight: counted when a pod is chosen, released when the access log tells of the end.

Pure and synchronous: choosing and counting are one step, so a burst never chooses twice on the same count.
`share.py` states the counts to the other instances and brings theirs.
"""

from collections.abc import Callable, Mapping

import msgspec

from extproc.state.envoy import MAX_REQUEST_S

LIFETIME_S = MAX_REQUEST_S + 10
"""When a reservation is surely lost: the longest life of a request, and time for its log entry to come."""


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """One request on its way to a pod."""

    id: int
    """Unique within this instance; below 2**53, since Envoy carries it as a double."""
    pod: str
    """Key of the chosen pod."""
    address: str
    """``ip:port`` of the chosen pod."""
    server: str
    """Key of the ModelServer."""
    route: str
    """Key of the ModelRoute."""
    request_id: str
    """Envoy's id of the request; empty if it gave none."""
    made: float
    """When, on the clock of `Reservations`."""


class Reservations:
    """All requests in flight of this instance, and how many the others have."""

    def __init__(self, clock: Callable[[], float], lifetime_s: float = LIFETIME_S) -> None:
        """`clock` gives monotonic seconds; `expire` drops what is older than `lifetime_s`."""
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._held: dict[int, Reservation] = {}
        self._by_request: dict[str, int] = {}
        self._own: dict[str, int] = {}
        self._others: dict[str, int] = {}
        self._last_id = 0
        self._changed: Callable[[], object] = _unwatched

    def watch(self, changed: Callable[[], object]) -> None:
        """Call `changed`, which must be cheap and never fail, after every change of a count."""
        self._changed = changed

    def reserve(
        self, *, pod: str, address: str, server: str, route: str, request_id: str = ""
    ) -> Reservation:
        """Count one more request in flight to `pod`."""
        self._last_id += 1
        reservation = Reservation(self._last_id, pod, address, server, route, request_id, self._clock())
        self._held[reservation.id] = reservation
        if request_id:
            self._by_request[request_id] = reservation.id
        self._own[pod] = self._own.get(pod, 0) + 1
        self._changed()
        return reservation

    def release(self, reservation_id: int) -> Reservation | None:
        """Stop counting a request; None when it is not, or no longer, counted."""
        reservation = self._held.pop(reservation_id, None)
        if reservation is not None:
            if self._by_request.get(reservation.request_id) == reservation_id:
                del self._by_request[reservation.request_id]
            self._forget(reservation.pod)
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

    def load(self, pod: str) -> int:
        """Requests in flight to `pod`: our own as of now, the others' as of the last `absorb`."""
        return self._own.get(pod, 0) + self._others.get(pod, 0)

    def counts(self) -> dict[str, int]:
        """Our own requests in flight per pod; pods without any are left out."""
        return dict(self._own)

    def absorb(self, stated: Mapping[str, int], totals: Mapping[str, int]) -> None:
        """Learn what the others have in flight: the totals less what of them we `stated` ourselves."""
        others = {pod: total - stated.get(pod, 0) for pod, total in totals.items()}
        self._others = {pod: count for pod, count in others.items() if count > 0}

    def _forget(self, pod: str) -> None:
        left = self._own[pod] - 1
        if left:
            self._own[pod] = left
        else:
            del self._own[pod]
        self._changed()


def _unwatched() -> None:
    """Nobody is told of changes."""
