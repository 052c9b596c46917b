"""The story of a request: understand it, find its rule, draw a ModelServer, place it, reserve.

Everything here is synchronous over an immutable snapshot, so choosing a pod and counting the request on it
are one step: a burst inside one worker sees its own choices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import msgspec

from extproc import request, route, splice
from extproc.exchange import Decide, Decision, LocalAnswer, Routing, rejected
from extproc.explain import Journal
from extproc.rejection import Rejection
from extproc.request import InferenceRequest
from extproc.reservations import Reservations
from extproc.route import RouteMatch
from extproc.schedule import least_in_flight
from extproc.schedule.placement import Placement
from extproc.state.records import ModelServer
from extproc.state.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a request goes and by which rule."""

    match: RouteMatch
    server: ModelServer
    placement: Placement
    body: bytes | None
    """The edited body; None where it stays."""


def choose(
    snapshot: Snapshot, ask: Decide, in_flight: Callable[[str], int], rng: Random
) -> Choice | Rejection:
    """The decision itself; pure but for the draws from `rng`."""
    parsed = None if ask.body is None else request.parse(request.APIS[ask.head.path], ask.body)
    if isinstance(parsed, Rejection):
        return parsed
    match = route.find(snapshot, ask.head, None if parsed is None else parsed.model)
    if isinstance(match, Rejection):
        return match
    server = route.draw(match.rule, rng)
    endpoints = snapshot.endpoints[server.key]
    if not endpoints:
        name = f"{server.namespace}/{server.name}"
        return Rejection("no-ready-pod", f"The ModelServer {name} has no ready pod; try again later.")
    placement = least_in_flight.place(endpoints, in_flight, rng)
    return Choice(match, server, placement, _body(parsed, match, server))


def _body(parsed: InferenceRequest | None, match: RouteMatch, server: ModelServer) -> bytes | None:
    """A base model is renamed as its server wants it; an adapter keeps its own name."""
    if parsed is None:
        return None
    return splice.rewrite(parsed, None if match.adapter else server.model, server.report_usage)


def list_models(snapshot: Snapshot) -> LocalAnswer:
    """The answer to ``GET /v1/models``: every model and adapter that some route serves."""
    models = [
        {"id": name, "object": "model", "created": int(created), "owned_by": "kvoy"}
        for name, created in snapshot.models
    ]
    body = msgspec.json.encode({"object": "list", "data": models})
    return LocalAnswer(200, (("content-type", "application/json"),), body)


class Decider:
    """Makes decisions on the current snapshot, reserves what it chose and keeps the reasons."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], reservations: Reservations, journal: Journal, rng: Random
    ) -> None:
        self._snapshot = snapshot
        self._reservations = reservations
        self._journal = journal
        self._rng = rng

    @property
    def wanted_headers(self) -> frozenset[str]:
        """Names of the headers that the current rules look at."""
        return self._snapshot().header_names

    def decide(self, ask: Decide) -> Decision:
        """Choose and reserve, or answer here. Reserving comes last: what fails before it leaves no count."""
        snapshot = self._snapshot()
        if ask.head.method in ("GET", "HEAD") and ask.head.path in request.MODELS_PATHS:
            return list_models(snapshot)
        choice = choose(snapshot, ask, self._reservations.load, self._rng)
        if isinstance(choice, Rejection):
            self._journal.rejected(ask.head, choice, snapshot.generation)
            return rejected(choice)
        self._journal.routed(ask.head, choice.match, choice.server, choice.placement, snapshot.generation)
        chosen = choice.placement.chosen.endpoint
        reservation = self._reservations.reserve(
            pod=chosen.pod,
            address=chosen.address,
            server=choice.server.key,
            route=choice.match.route.key,
            request_id=ask.head.request_id,
        )
        return Routing(choice.server.cluster, choice.placement, reservation.id, choice.body)

    def forget(self, routing: Routing) -> None:
        """Take back the reservation of a decision that never reached Envoy."""
        self._reservations.release(routing.reservation)
