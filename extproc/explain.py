"""Why a request went where it went: the last decisions of this worker, kept in memory.

Recording costs one tuple per request; the explanation is put into words only when somebody asks. It holds
names and counts, never prompt text or header values.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from extproc.rejection import Rejection
from extproc.request import Head
from extproc.route import RouteMatch
from extproc.schedule.placement import Placement
from extproc.state.records import ModelServer, label

_LONGEST_TEXT = 256
"""Characters kept of what a client chose: it must not choose our memory."""


@dataclass(frozen=True, slots=True)
class _Routed:
    path: str
    match: RouteMatch
    server: ModelServer
    placement: Placement
    generation: int


@dataclass(frozen=True, slots=True)
class _Rejected:
    path: str
    rejection: Rejection
    generation: int


class Journal:
    """The last `capacity` decisions, by request id."""

    def __init__(self, worker: str, capacity: int = 2000) -> None:
        self._worker = worker
        self._capacity = capacity
        self._entries: OrderedDict[str, _Routed | _Rejected] = OrderedDict()

    def routed(
        self, head: Head, match: RouteMatch, server: ModelServer, placement: Placement, generation: int
    ) -> None:
        self._keep(head, _Routed(head.path[:_LONGEST_TEXT], match, server, placement, generation))

    def rejected(self, head: Head, rejection: Rejection, generation: int) -> None:
        self._keep(head, _Rejected(head.path[:_LONGEST_TEXT], rejection, generation))

    def explain(self, request_id: str) -> dict[str, Any] | None:
        """The decision on a request as a JSON object; None when it is not (or no longer) known here."""
        entry = self._entries.get(request_id)
        if entry is None:
            return None
        told = _told(entry) if isinstance(entry, _Routed) else _refused(entry)
        shared = {"request_id": request_id, "worker": self._worker, "path": entry.path}
        return {**shared, "generation": entry.generation, **told}

    def _keep(self, head: Head, entry: _Routed | _Rejected) -> None:
        self._entries[head.request_id[:_LONGEST_TEXT]] = entry
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)


def _told(entry: _Routed) -> dict[str, Any]:
    return {
        "route": f"{entry.match.route.namespace}/{entry.match.route.name}",
        "rule": entry.match.rule.name,
        "adapter": entry.match.adapter,
        "server": f"{entry.server.namespace}/{entry.server.name}",
        "pod": label(entry.placement.chosen.endpoint.pod),
        "why": entry.placement.why(),
        "considered": entry.placement.considered,
        "candidates": [
            {
                "pod": label(candidate.endpoint.pod),
                "address": candidate.endpoint.address,
                "in_flight": candidate.in_flight,
            }
            for candidate in entry.placement.candidates
        ],
    }


def _refused(entry: _Rejected) -> dict[str, Any]:
    rejection = entry.rejection
    return {"status": rejection.status, "reason": rejection.reason, "why": rejection.message}
