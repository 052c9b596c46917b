"""The story of a request: understand it, find its rule, draw a ModelServer, place it, reserve.

`plan` is pure but for its draw. Placing reads what the fleet knows as of now, and choosing a pod and counting
the request on it are one synchronous step: a burst inside one worker sees its own choices. Only a ModelServer
whose profile matches exactly makes a request wait, for its token ids and under a deadline.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from extproc import request, route, splice
from extproc.exchange import Decide, Decision, LocalAnswer, Routing, rejected
from extproc.explain import Journal, Listed, Refused, Routed, edits
from extproc.fleet import Fleet
from extproc.lookup import Lookup
from extproc.rejection import Rejection
from extproc.request import Head, InferenceRequest
from extproc.route import RouteMatch
from extproc.schedule.placement import Nobody, Placement
from extproc.schedule.pool import Prompt
from extproc.schedule.scheduler import Scheduler
from extproc.state.records import ModelServer
from extproc.state.snapshot import EMPTY, Endpoint, Snapshot
from extproc.tokens import Found, Miss, Parts, Question, Tokens

TOKENS_DEADLINE_S = 0.05
"""Longest wait for the token ids of a prompt."""
_ENGINES_ASKED = 3
"""Pods that may be asked for the token ids of one prompt, one after the other."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that is understood, and the pool of endpoints it may go to."""

    ask: Decide
    snapshot: Snapshot
    """The configuration that it was planned on."""
    request: InferenceRequest | None
    """None where the path's body is not parsed."""
    match: RouteMatch
    server: ModelServer
    endpoints: tuple[Endpoint, ...]

    @property
    def adapter(self) -> str | None:
        """The LoRA adapter that is asked for."""
        return self.request.model if self.match.adapter and self.request is not None else None

    def body(self) -> bytes | None:
        """The edited body; None where it stays. An adapter keeps its name, a base model gets its server's."""
        if self.request is None:
            return None
        model = None if self.match.adapter else self.server.model
        return splice.rewrite(self.request, model, self.server.report_usage)


def plan(snapshot: Snapshot, ask: Decide, rng: Random) -> Plan | Rejection:
    """Everything about a decision that does not depend on the state of the engines."""
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
    return Plan(ask, snapshot, parsed, match, server, endpoints)


def list_models(snapshot: Snapshot) -> LocalAnswer:
    """The answer to ``GET /v1/models``: every model and adapter that some route serves."""
    models = [
        {"id": name, "object": "model", "created": int(created), "owned_by": "kvoy"}
        for name, created in snapshot.models
    ]
    body = msgspec.json.encode({"object": "list", "data": models})
    return LocalAnswer(200, (("content-type", "application/json"),), body)


def tokenizer(server: ModelServer) -> str | None:
    """The directory of a ModelServer's tokeniser; None: it is called like the model that is asked for."""
    return server.tokenizer or server.model


class Decider:
    """Makes decisions on the current snapshot, reserves what it chose and keeps the reasons."""

    def __init__(
        self,
        fleet: Fleet,
        tokens: Tokens,
        journal: Journal,
        rng: Random,
        turn: Callable[[], float],
    ) -> None:
        """`turn` gives where to begin among equals (`turns.Turns.now`)."""
        self._fleet = fleet
        self._tokens = tokens
        self._journal = journal
        self._rng = rng
        self._turn = turn
        self._snapshot = EMPTY
        self._schedulers: Mapping[str, Scheduler] = {}

    def adopt(self, snapshot: Snapshot) -> None:
        """Decide on this configuration from now on; raises ValueError, and keeps the former, if it cannot."""
        schedulers = {key: _scheduler(server, snapshot) for key, server in snapshot.servers.items()}
        self._fleet.adopt(snapshot)
        self._snapshot, self._schedulers = snapshot, schedulers

    @property
    def wanted_headers(self) -> frozenset[str]:
        """Names of the headers that the current rules look at."""
        return self._snapshot.header_names

    def decide(self, ask: Decide) -> Decision | Plan:
        """Choose and reserve, or answer here; a Plan where token ids are wanted first: see `informed`."""
        snapshot = self._snapshot
        if ask.head.method in ("GET", "HEAD") and ask.head.path in request.MODELS_PATHS:
            return list_models(snapshot)
        planned = plan(snapshot, ask, self._rng)
        if isinstance(planned, Rejection):
            return self._refuse(ask.head, Refused(planned), snapshot.generation)
        if self._wants_ids(planned):
            return planned
        return self._settle(planned, None)

    async def informed(self, planned: Plan) -> Decision:
        """Carry a plan on with the token ids of its prompt, or without where they take too long."""
        ids = await self._ids(planned)
        renewed = self._renewed(planned)
        if isinstance(renewed, Rejection):
            return self._refuse(planned.ask.head, Refused(renewed), self._snapshot.generation)
        return self._settle(renewed, ids if renewed.server.key == planned.server.key else None)

    async def preview(self, head: Head, body: bytes) -> dict[str, Any]:
        """What would be decided now, as `Journal` tells it; nothing is reserved, learnt or kept."""
        snapshot = self._snapshot
        if head.method in ("GET", "HEAD") and head.path in request.MODELS_PATHS:
            return self._journal.preview(head, Listed(), snapshot.generation, {})
        parsed = head.method == "POST" and head.path in request.APIS
        planned = plan(snapshot, Decide(head, body if parsed else None), self._rng)
        if isinstance(planned, Rejection):
            return self._journal.preview(head, Refused(planned), snapshot.generation, {})
        ids = None
        if self._wants_ids(planned):
            ids = await self._ids(planned)
            planned = self._renewed(planned)
            if isinstance(planned, Rejection):
                return self._journal.preview(head, Refused(planned), snapshot.generation, {})
        placement = self._place(planned, self._lookup(planned, ids), ids)
        if isinstance(placement, Nobody):
            return self._journal.preview(head, _refused(planned, placement), snapshot.generation, {})
        routed = Routed(planned.match, planned.server, placement)
        return self._journal.preview(head, routed, snapshot.generation, edits(body, planned.body()))

    def tokenizers(self) -> set[str]:
        """Tokenisers that requests will need, as far as the configuration names them."""
        servers = self._snapshot.servers.values()
        wanted = (tokenizer(server) for server in servers if self._schedulers[server.key].wants_exact)
        return {name for name in wanted if name is not None}

    def forget(self, routing: Routing) -> None:
        """Take back the reservation of a decision that never reached Envoy."""
        self._fleet.take_back(routing.reservation)

    def _renewed(self, planned: Plan) -> Plan | Rejection:
        """The plan on the configuration as it is after a wait."""
        snapshot = self._snapshot
        return planned if planned.snapshot is snapshot else plan(snapshot, planned.ask, self._rng)

    def _wants_ids(self, planned: Plan) -> bool:
        return planned.request is not None and self._schedulers[planned.server.key].wants_exact

    def _refuse(self, head: Head, refused: Refused, generation: int) -> LocalAnswer:
        self._journal.decided(head, refused, generation)
        return rejected(refused.rejection)

    async def _ids(self, planned: Plan) -> Found | Miss:
        asked = planned.request
        assert asked is not None
        if asked.api.name not in ("chat", "completions"):
            return Miss(f"token ids of {asked.api.name} requests are not computed")
        addresses = list({endpoint.address for endpoint in planned.endpoints})
        engines = self._rng.sample(addresses, min(_ENGINES_ASKED, len(addresses)))
        return await self._tokens.ids(_question(planned, asked, engines), TOKENS_DEADLINE_S)

    def _settle(self, planned: Plan, ids: Found | Miss | None) -> Decision:
        """Place and reserve. A decision that fails leaves no count."""
        body = planned.body()
        lookup = self._lookup(planned, ids)
        placement = self._place(planned, lookup, ids)
        if isinstance(placement, Nobody):
            return self._refuse(planned.ask.head, _refused(planned, placement), planned.snapshot.generation)
        reservation = self._fleet.reserve(
            planned.server.key,
            planned.match.route.key,
            planned.ask.head.request_id,
            planned.request,
            lookup,
            placement,
        )
        routing = Routing(planned.server.cluster, placement, reservation.id, body)
        try:
            routed = Routed(planned.match, planned.server, placement, reservation.id)
            self._journal.decided(planned.ask.head, routed, planned.snapshot.generation)
        except Exception:
            self.forget(routing)
            raise
        return routing

    def _lookup(self, planned: Plan, ids: Found | Miss | None) -> Lookup:
        known = ids.ids if isinstance(ids, Found) else None
        return self._fleet.lookup(planned.server, planned.request, planned.adapter, known)

    def _place(self, planned: Plan, lookup: Lookup, ids: Found | Miss | None) -> Placement | Nobody:
        notes = _notes(planned, lookup, ids)
        prompt = Prompt(lookup.tokens, planned.adapter, lookup.kind)
        pool = self._fleet.pool(planned.endpoints, prompt, lookup, notes)
        return self._schedulers[planned.server.key].place(pool, self._rng, self._turn())


def _notes(planned: Plan, lookup: Lookup, ids: Found | Miss | None) -> tuple[str, ...]:
    if isinstance(ids, Miss):
        return (f"matched approximately, because {ids.reason}",)
    if ids is not None and not lookup.is_exact(planned.endpoints):
        return ("matched approximately, because no engine's KV events are followed",)
    return ()


def _scheduler(server: ModelServer, snapshot: Snapshot) -> Scheduler:
    try:
        return Scheduler.of(server.profile or snapshot.profile)
    except (ValueError, msgspec.ValidationError) as error:
        raise ValueError(f"the profile of {server.key} can not be used: {error}") from error


def _refused(planned: Plan, nobody: Nobody) -> Refused:
    """No endpoint of the pool may serve the request."""
    name = f"{planned.server.namespace}/{planned.server.name}"
    message = f"No pod of the ModelServer {name} takes the request now: {nobody.why()}."
    return Refused(Rejection(nobody.reason, message), planned.match, planned.server, nobody)


def _question(planned: Plan, asked: InferenceRequest, engines: Iterable[str]) -> Question:
    server = planned.server
    scheme = "http" if server.tls is None else "https"
    return Question(
        kind="chat" if asked.api.name == "chat" else "completion",
        parts=Parts.of(asked.body),
        model=asked.model if planned.match.adapter else server.model or asked.model,
        tokenizer=tokenizer(server) or asked.model,
        engines=[f"{scheme}://{address}" for address in engines],
    )
