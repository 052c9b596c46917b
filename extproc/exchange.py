"""One HTTP request as Envoy shows it to us, as a state machine: events in, answers out.

The machine never waits and never decides. It collects what a decision needs, says `Decide` once, and turns
the decision into the answers that Envoy's body mode wants:

* BUFFERED: headers, then the whole body in one message; each is answered once.
* FULL_DUPLEX_STREAMED: the body comes in chunks and the answer to the headers is held back until it is whole;
  then the headers are answered and the body is sent back in chunks.

A path whose body is not parsed is decided on its headers and its body passes by; a body that may be JSON is
decided on all the same, because it may steer an engine (`extproc.control`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from extproc.rejection import Rejection
from extproc.request import APIS, Head
from extproc.schedule.pair import Pair
from extproc.schedule.placement import Placement

CHUNK_BYTES = 62_000
"""Body bytes per answer in full duplex: Envoy's recommendation of 64 KiB less room for the framing."""


class BodyMode(Enum):
    """How Envoy sends the request body; the first message of a stream says it."""

    BUFFERED = auto()
    FULL_DUPLEX = auto()


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """The request's headers: the first event of every exchange."""

    head: Head
    last: bool
    """No body follows."""
    mode: BodyMode


@dataclass(frozen=True, slots=True)
class BodyReceived:
    """A piece of the request body; in buffered mode all of it."""

    chunk: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class TrailersReceived:
    """The request's trailers: the body is complete."""


Event = HeadersReceived | BodyReceived | TrailersReceived


@dataclass(frozen=True, slots=True)
class Transferred:
    """What of a request belongs to one transfer, and is taken out again where that is not made or failed."""

    start: int
    length: int
    """Bytes of the body, from `start` on, that carry its parameters; 0 where a header does."""
    partners: tuple[str, ...]
    """``ip:port`` of the decode endpoints that may get them."""
    tries: int
    """Attempts of Envoy's that may carry them; 0 means any number, until one was answered with an error."""
    needed: bool = False
    """The decode endpoints can do nothing without: where they are taken out, the attempt is refused."""


@dataclass(frozen=True, slots=True)
class Routing:
    """A decision to pass the request on."""

    cluster: str
    placement: Placement | Pair
    reservation: int
    body: bytes | None
    """The body that replaces the client's; None leaves it."""
    headers: tuple[tuple[str, str], ...] = ()
    """Set beside those of the placement."""
    removed: tuple[str, ...] = ()
    """Headers of the client's that the engine must not see."""
    transferred: Transferred | None = None


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """A decision to answer here: an error, or what the configuration alone can tell."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


Decision = Routing | LocalAnswer


@dataclass(frozen=True, slots=True)
class Decide:
    """Wants a decision on this request, to be handed to `Exchange.decided`."""

    head: Head
    body: bytes | None
    """The whole body; None where the path's body is not parsed."""


@dataclass(frozen=True, slots=True)
class AskForBody:
    """Answer to the headers: go on and show the body."""


@dataclass(frozen=True, slots=True)
class KeepWaiting:
    """No answer yet, but it will come: Envoy shall wait for it for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class LeaveToWatch:
    """No decision here: it is for the filter under which a worker can stay with the request."""


@dataclass(frozen=True, slots=True)
class RouteOnHeaders:
    """Answer to the headers: pass the request on.

    A buffered body is not shown any more; in full duplex it goes on as `SendChunk`s.
    """

    routing: Routing
    mode: BodyMode


@dataclass(frozen=True, slots=True)
class RouteOnBody:
    """Answer to the buffered body: pass the request on."""

    routing: Routing


@dataclass(frozen=True, slots=True)
class SendChunk:
    """Full duplex: a piece of the body for the engine."""

    chunk: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class PassTrailers:
    """Full duplex: the answer to request trailers."""


Answer = (
    AskForBody
    | KeepWaiting
    | LeaveToWatch
    | RouteOnHeaders
    | RouteOnBody
    | LocalAnswer
    | SendChunk
    | PassTrailers
)


class OutOfOrder(Exception):
    """Envoy sent a message that this point of the exchange does not allow."""


class Phase(Enum):
    """What the exchange waits for."""

    HEADERS = auto()
    BODY = auto()
    DECISION = auto()
    PASSING = auto()
    """Full duplex, decided on headers: body chunks are sent back as they come."""
    DONE = auto()


@dataclass(slots=True)
class Exchange:
    """The state of one request. Feed it events; perform what it returns."""

    body_limit: int
    """Largest body collected in full duplex, in bytes; Envoy bounds a buffered one itself."""
    phase: Phase = Phase.HEADERS
    _opening: HeadersReceived | None = None
    _chunks: list[bytes] = field(default_factory=list)
    _collected: int = 0
    _whole: bytes | None = None
    """The body that was decided on; None when the decision is made on headers."""
    _trailers: bool = False

    @property
    def done(self) -> bool:
        """Nothing more will be answered: the stream can be closed."""
        return self.phase is Phase.DONE

    @property
    def timed(self) -> bool:
        """Whether Envoy bounds the time until it has its answer: not in full duplex."""
        return self._opening is not None and self._opening.mode is BodyMode.BUFFERED

    def receive(self, event: Event) -> Decide | Answer | None:
        """Take an event; the result is what to do, None to wait for more. Raises `OutOfOrder`."""
        match self.phase, event:
            case Phase.HEADERS, HeadersReceived():
                return self._headers(event)
            case Phase.BODY, BodyReceived(chunk, last):
                return self._body(chunk, last)
            case Phase.BODY, TrailersReceived():
                self._trailers = True
                return self._decide(b"".join(self._chunks))
            case Phase.PASSING, BodyReceived(chunk, last):
                self.phase = Phase.DONE if last else Phase.PASSING
                return SendChunk(chunk, last)
            case Phase.PASSING, TrailersReceived():
                self.phase = Phase.DONE
                return PassTrailers()
        raise OutOfOrder(f"{type(event).__name__} while waiting for {self.phase.name.lower()}")

    def decided(self, decision: Decision | LeaveToWatch) -> Iterator[Answer]:
        """The answers that carry out a decision. Raises `OutOfOrder` where none was asked for."""
        opening = self._opening
        if self.phase is not Phase.DECISION or opening is None:
            raise OutOfOrder(f"a decision while waiting for {self.phase.name.lower()}")
        self.phase = Phase.DONE
        if isinstance(decision, (LocalAnswer, LeaveToWatch)):
            yield decision
        elif self._whole is None:
            if opening.mode is BodyMode.FULL_DUPLEX and not opening.last:
                self.phase = Phase.PASSING
            yield RouteOnHeaders(decision, opening.mode)
        elif opening.mode is BodyMode.BUFFERED:
            yield RouteOnBody(decision)
        else:
            yield RouteOnHeaders(decision, opening.mode)
            yield from self._send(self._whole if decision.body is None else decision.body)

    def _headers(self, event: HeadersReceived) -> Decide | AskForBody | None:
        self._opening = event
        parsed = event.head.method == "POST" and event.head.path in APIS
        if not parsed and (event.last or not _may_steer(event.head)):
            return self._decide(None)
        if event.last:
            return self._decide(b"")
        self.phase = Phase.BODY
        return AskForBody() if event.mode is BodyMode.BUFFERED else None

    def _body(self, chunk: bytes, last: bool) -> Decide | LocalAnswer | None:
        if self._opening is not None and self._opening.mode is BodyMode.BUFFERED:
            return self._decide(chunk)
        self._chunks.append(chunk)
        self._collected += len(chunk)
        if self._collected > self.body_limit:
            self.phase = Phase.DONE
            return rejected(
                Rejection(
                    "body-too-large", f"The body exceeds {self.body_limit} bytes; send a shorter prompt."
                )
            )
        return self._decide(b"".join(self._chunks)) if last else None

    def _decide(self, body: bytes | None) -> Decide:
        self.phase = Phase.DECISION
        self._whole = body
        assert self._opening is not None
        return Decide(self._opening.head, body)

    def _send(self, body: bytes) -> Iterator[SendChunk | PassTrailers]:
        for start in range(0, len(body) or 1, CHUNK_BYTES):
            end = start + CHUNK_BYTES
            yield SendChunk(body[start:end], last=end >= len(body) and not self._trailers)
        if self._trailers:
            yield PassTrailers()


def _may_steer(head: Head) -> bool:
    return head.json and head.method in ("POST", "PUT", "PATCH")


def rejected(rejection: Rejection) -> LocalAnswer:
    """A rejection as the answer that the client gets."""
    return LocalAnswer(rejection.status, rejection.headers(), rejection.body())
