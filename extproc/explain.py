"""Why a request went where it went, and how that ended: the last decisions of this worker, kept in memory.

Recording costs a few small objects per request; the explanation is put into words only when somebody asks. It
holds names and counts, never prompt text or header values.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from extproc.accesslog import End, Entry, Outcome
from extproc.calibration import Claim
from extproc.handoff.ledger import Ending, Result
from extproc.rejection import Rejection
from extproc.request import Head
from extproc.route import RouteMatch
from extproc.schedule.pair import Pair
from extproc.schedule.placement import Nobody, Placement
from extproc.state.records import ModelServer, label
from extproc.state.snapshot import Endpoint

_LONGEST_TEXT = 256
"""Characters kept of what a client chose: it must not choose our memory."""
DECISIONS = 2000
CANDIDATES = 32 * DECISIONS
"""Rows of evidence kept of all decisions together: of large pools, fewer decisions are remembered."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """What is kept of an outcome: its reservation may hold what was known of the prompt."""

    entry: Entry
    end: End
    moved: bool
    predicted: int | None
    """Tokens that the chosen endpoint should have had cached."""


@dataclass(frozen=True, slots=True)
class Routed:
    """A request that was placed."""

    match: RouteMatch
    server: ModelServer
    placement: Placement | Pair
    reservation: int | None = None
    """None where nothing was reserved: in a preview."""

    @property
    def rows(self) -> int:
        """Its size in memory: how many endpoints it tells about."""
        return self.placement.rows

    def told(self) -> dict[str, Any]:
        """As a JSON object."""
        matched = _matched(self.match, self.server)
        return {**matched, **self.placement.explain(), "reservation": self.reservation}


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that was answered with an error; with what was found out before that."""

    rejection: Rejection
    match: RouteMatch | None = None
    server: ModelServer | None = None
    nobody: Nobody | None = None
    """Why every endpoint was screened out, where that is the cause."""

    @property
    def rows(self) -> int:
        """As `Routed.rows`."""
        return 0 if self.nobody is None else self.nobody.rows

    def told(self) -> dict[str, Any]:
        """As a JSON object, with the error that the client sees."""
        rejection = self.rejection
        found = {} if self.match is None or self.server is None else _matched(self.match, self.server)
        screened = {} if self.nobody is None else self.nobody.explain()
        answer = {
            "status": rejection.status,
            "reason": rejection.reason,
            "why": rejection.message,
            "headers": dict(rejection.headers()),
            "body": msgspec.Raw(rejection.body()),
        }
        return {**answer, **found, **screened}


@dataclass(frozen=True, slots=True)
class Listed:
    """The list of models was asked for; such requests are not remembered."""

    def told(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"status": 200, "why": "the list of models is answered from the configuration"}


class _Try(NamedTuple):
    """One prefill endpoint that was asked."""

    endpoint: Endpoint
    result: Result
    seconds: float

    def told(self) -> dict[str, Any]:
        return {**self._asdict(), "endpoint": label(self.endpoint.key)}


@dataclass(slots=True)
class _Entry:
    path: str
    generation: int
    decided_at: float
    decision: Routed | Refused
    client_request_id: str
    tries: list[_Try] = field(default_factory=list)
    ending: Ending | None = None
    ended: _Ended | None = None

    def handoff(self) -> dict[str, Any]:
        """How it went between two endpoints, so far."""
        return {"ending": self.ending, "tries": [each.told() for each in self.tries]}


class Journal:
    """The last decisions, by request id: at most `decisions`, and `candidates` rows of evidence in all."""

    def __init__(
        self,
        worker: str,
        clock: Callable[[], float],
        decisions: int = DECISIONS,
        candidates: int = CANDIDATES,
    ) -> None:
        """`clock` gives seconds since 1970."""
        self._worker = worker
        self._clock = clock
        self._decisions = decisions
        self._candidates = candidates
        self._rows = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def decided(self, head: Head, decision: Routed | Refused, generation: int) -> None:
        """Remember a decision made on that generation of the configuration."""
        request_id = head.request_id[:_LONGEST_TEXT]
        # A request that Envoy had decided twice: the later decision is the one that counted.
        self._forget(self._entries.pop(request_id, None))
        self._entries[request_id] = _Entry(
            head.path[:_LONGEST_TEXT], generation, self._clock(), decision, head.client_request_id
        )
        self._rows += decision.rows
        while len(self._entries) > self._decisions or self._rows > self._candidates:
            self._forget(self._entries.popitem(last=False)[1])

    def tried(self, request_id: str, endpoint: Endpoint, result: Result, seconds: float) -> None:
        """Remember that a prefill endpoint was asked."""
        entry = self._entries.get(request_id[:_LONGEST_TEXT])
        if entry is not None:
            entry.tries.append(_Try(endpoint, result, seconds))

    def handed_off(self, request_id: str, ending: Ending) -> None:
        """Remember how a hand-off ended."""
        entry = self._entries.get(request_id[:_LONGEST_TEXT])
        if entry is not None:
            entry.ending = ending

    def ended(self, request_id: str, outcome: Outcome) -> None:
        """Remember how a request ended, as far as the decision that it ended is still known."""
        entry = self._entries.get(request_id[:_LONGEST_TEXT])
        if entry is None or not isinstance(entry.decision, Routed):
            return
        if entry.decision.reservation == outcome.reservation.id:
            claim = outcome.reservation.claim
            predicted = claim.predicted if isinstance(claim, Claim) and claim.tested_by(outcome) else None
            entry.ended = _Ended(outcome.entry, outcome.end, outcome.moved, predicted)

    def explain(self, request_id: str) -> dict[str, Any] | None:
        """The decision on a request as a JSON object; None when it is not (or no longer) known here."""
        entry = self._entries.get(request_id[:_LONGEST_TEXT])
        if entry is None:
            return None
        told = self._told(entry.path, entry.decision, entry.generation)
        if entry.tries or entry.ending is not None:
            told["handoff"] = {**told.get("handoff", {}), **entry.handoff()}
        if entry.ended is not None:
            told["outcome"] = _outcome(entry.ended)
        named = {"request_id": request_id, "client_request_id": entry.client_request_id or None}
        return {**named, "decided_at": entry.decided_at, **told}

    def preview(
        self, head: Head, decision: Routed | Refused | Listed, generation: int, changed: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A decision that was made to look at it, as `explain` tells one; it is not kept.

        `changed` are the `edits` of the body.
        """
        return {**self._told(head.path, decision, generation), "edits": changed}

    def _told(self, path: str, decision: Routed | Refused | Listed, generation: int) -> dict[str, Any]:
        return {"worker": self._worker, "path": path, "generation": generation, **decision.told()}

    def _forget(self, entry: _Entry | None) -> None:
        if entry is not None:
            self._rows -= entry.decision.rows


def edits(before: bytes, after: bytes | None) -> dict[str, Any]:
    """Top-level fields of a JSON body that differ after it was edited, with their new values."""
    if after is None:
        return {}
    was = msgspec.json.decode(before, type=dict[str, msgspec.Raw])
    became = msgspec.json.decode(after, type=dict[str, msgspec.Raw])
    return {name: value for name, value in became.items() if was.get(name) != value}


def _matched(match: RouteMatch, server: ModelServer) -> dict[str, Any]:
    return {
        "route": f"{match.route.namespace}/{match.route.name}",
        "rule": match.rule.name,
        "adapter": match.adapter,
        "server": label(server.key),
    }


def _outcome(ended: _Ended) -> dict[str, Any]:
    """How it ended, beside what was predicted for the endpoint that was chosen, if that one served."""
    entry = ended.entry
    told = entry.prompt_tokens > 0
    return {
        "end": ended.end.value,
        "status": entry.status,
        "served_by": entry.served or None,
        "moved": ended.moved,
        "first_byte_s": entry.first_byte_s,
        "duration_s": entry.duration_s,
        "prompt_tokens": entry.prompt_tokens if told else None,
        "completion_tokens": entry.completion_tokens if told else None,
        "cached_tokens": entry.cached_tokens if told else None,
        "predicted_cached_tokens": ended.predicted,
    }
