"""How a request ended, as Envoy's access log tells it, and what follows from that.

Envoy writes exactly one entry per request, whatever its end: success, engine error, retry, reset, client
gone. The entry carries the reservation made when the request was placed, so releasing on it is exact.
"""

from dataclasses import dataclass
from enum import StrEnum

from extproc.reservations import Reservation, Reservations


@dataclass(frozen=True, slots=True)
class Entry:
    """One HTTP access-log entry; times in seconds, None where the request did not get that far."""

    instance: str
    """The life of a worker that placed the request; empty where its answer never reached Envoy."""
    reservation: int
    request_id: str
    status: int
    """Status sent to the client; 0 when the client left before one."""
    client_gone: bool
    broken: bool
    """The answer began and was not brought to its end: by the engine, or by a limit of Envoy's."""
    served: str
    """``ip:port`` that answered last; empty when none was reached."""
    first_byte_s: float | None
    duration_s: float | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    """Of `prompt_tokens`; None where the engine does not say."""


class End(StrEnum):
    """How a request ended."""

    COMPLETE = "complete"
    """An answer below 400 reached the client whole."""
    CLIENT_GONE = "client-gone"
    ENGINE_ERROR = "engine-error"
    """A status of 400 or more, the engine's own or Envoy's after its retries, or an answer that broke off."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An entry together with the reservation it ended."""

    reservation: Reservation
    entry: Entry

    @property
    def end(self) -> End:
        if self.entry.client_gone:
            return End.CLIENT_GONE
        failed = self.entry.broken or self.entry.status >= 400 or not self.entry.status
        return End.ENGINE_ERROR if failed else End.COMPLETE

    @property
    def moved(self) -> bool:
        """Another endpoint than the chosen one served: Envoy retried."""
        return bool(self.entry.served) and self.entry.served != self.reservation.address


def settle(entry: Entry, reservations: Reservations, instance: str) -> Outcome | None:
    """Release the entry's reservation; None when it is not ours or no longer held.

    An entry of an earlier life of this worker is dropped: its reservations went with it. A client that
    leaves while the answer is on its way to Envoy leaves an entry that names only the request.
    """
    if not entry.instance:
        reservation = reservations.release_request(entry.request_id)
    elif entry.instance == instance:
        reservation = reservations.release(entry.reservation)
    else:
        return None
    return None if reservation is None else Outcome(reservation, entry)
