"""The story of a request: understand it, find its rule, draw a ModelServer, place it, reserve.

Placing reads what the fleet knows as of now, and choosing endpoints and counting the request on them are one
synchronous step: a burst inside one worker sees its own choices. Only a ModelServer whose profile matches
exactly makes a request wait here, for its token ids and under a deadline. Where prefill and decode are apart,
what is decided is a `HandOff`, which `handoff.driver` carries out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import msgspec

from extproc import apart, request
from extproc.exchange import Decide, Decision, LeaveToWatch, LocalAnswer, Routing, rejected
from extproc.explain import Journal, Listed, Refused, Routed, edits
from extproc.fleet import Fleet
from extproc.handoff.handoff import HandOff
from extproc.legs import Legs
from extproc.lookup import Lookup
from extproc.plan import Plan, list_models, plan, tokenizer
from extproc.rejection import Rejection
from extproc.request import Head, InferenceRequest
from extproc.schedule import pair
from extproc.schedule.pair import Pair
from extproc.schedule.placement import Nobody, Placement
from extproc.schedule.pool import Prompt
from extproc.schedule.scheduler import Scheduler
from extproc.state.records import ModelServer
from extproc.state.snapshot import EMPTY, Snapshot
from extproc.tokens import Found, Miss, Parts, Question, Tokens

TOKENS_DEADLINE_S = 0.05
"""Longest wait for the token ids of a prompt."""
_ENGINES_ASKED = 3
"""Pods that may be asked for the token ids of one prompt, one after the other."""


def _always() -> bool:
    """A worker can stay with every request: most gateways let it."""
    return True


class Decider:
    """Makes decisions on the current snapshot, reserves what it chose and keeps the reasons."""

    def __init__(
        self,
        fleet: Fleet,
        legs: Legs,
        tokens: Tokens,
        journal: Journal,
        rng: Random,
        turn: Callable[[], float],
    ) -> None:
        """`turn` gives where to begin among equals (`turns.Turns.now`)."""
        self._fleet = fleet
        self._legs = legs
        self._tokens = tokens
        self._journal = journal
        self._rng = rng
        self._turn = turn
        self._snapshot = EMPTY
        self._schedulers: Mapping[str, Scheduler] = {}
        self._wanted_headers: frozenset[str] = frozenset()

    def adopt(self, snapshot: Snapshot) -> None:
        """Decide on this configuration from now on; raises ValueError, and keeps the former, if it cannot."""
        schedulers = {key: _scheduler(server, snapshot) for key, server in snapshot.servers.items()}
        self._fleet.adopt(snapshot)
        self._snapshot, self._schedulers = snapshot, schedulers
        hands_off = any(server.disaggregation is not None for server in snapshot.servers.values())
        self._wanted_headers = snapshot.header_names | (apart.PASSED_ON if hands_off else frozenset())

    @property
    def wanted_headers(self) -> frozenset[str]:
        """Names of the headers that the current rules, or prefill engines, look at."""
        return self._wanted_headers

    def decide(
        self, ask: Decide, may_stay: Callable[[], bool] = _always
    ) -> Decision | LeaveToWatch | HandOff | Plan:
        """Choose and reserve, or answer here; a Plan where token ids are wanted first: see `informed`.

        `may_stay` tells whether a worker can have to do with the request after its answer has begun.
        """
        snapshot = self._snapshot
        if ask.head.method in ("GET", "HEAD") and ask.head.path in request.MODELS_PATHS:
            return list_models(snapshot)
        planned = self._plan(ask)
        if isinstance(planned, Rejection):
            return self._refuse(ask.head, Refused(planned), snapshot.generation)
        if self._wants_ids(planned):
            return planned
        return self._settle(planned, None, may_stay)

    async def informed(
        self, planned: Plan, may_stay: Callable[[], bool] = _always
    ) -> Decision | LeaveToWatch | HandOff:
        """Carry a plan on with the token ids of its prompt, or without where they take too long."""
        ids = await self._ids(planned)
        renewed = self._renewed(planned)
        if isinstance(renewed, Rejection):
            return self._refuse(planned.ask.head, Refused(renewed), self._snapshot.generation)
        return self._settle(renewed, ids if renewed.server.key == planned.server.key else None, may_stay)

    async def preview(self, head: Head, body: bytes) -> dict[str, Any]:
        """What would be decided now, as `Journal` tells it; nothing is reserved, learnt or kept."""
        snapshot = self._snapshot
        if head.method in ("GET", "HEAD") and head.path in request.MODELS_PATHS:
            return self._journal.preview(head, Listed(), snapshot.generation, {})
        planned = self._plan(Decide(head, body))
        if isinstance(planned, Rejection):
            return self._journal.preview(head, Refused(planned), snapshot.generation, {})
        ids = None
        if self._wants_ids(planned):
            ids = await self._ids(planned)
            planned = self._renewed(planned)
            if isinstance(planned, Rejection):
                return self._journal.preview(head, Refused(planned), snapshot.generation, {})
        placed = self._place(planned, self._lookup(planned, ids), ids)
        if isinstance(placed, Nobody):
            return self._journal.preview(head, _refused(planned, placed), snapshot.generation, {})
        routed = Routed(planned.match, planned.server, placed)
        return self._journal.preview(head, routed, snapshot.generation, edits(body, planned.body()))

    def tokenizers(self) -> set[str]:
        """Tokenisers that requests will need, as far as the configuration names them."""
        servers = self._snapshot.servers.values()
        wanted = (tokenizer(server) for server in servers if self._schedulers[server.key].wants_exact)
        return {name for name in wanted if name is not None}

    def forget(self, decision: Routing | HandOff) -> None:
        """Take back the reservations of a decision that never reached Envoy."""
        if isinstance(decision, HandOff):
            self._legs.dropped(decision.reservation, failed=True)
            decision = decision.routing
        self._legs.refused(decision.reservation)

    def refused(self, handoff: HandOff) -> None:
        """Take back the answer's leg of a hand-off that is not going to have one."""
        self._legs.refused(handoff.routing.reservation)

    def _renewed(self, planned: Plan) -> Plan | Rejection:
        """The plan on the configuration as it is after a wait."""
        return planned if planned.snapshot is self._snapshot else self._plan(planned.ask)

    def _plan(self, ask: Decide) -> Plan | Rejection:
        planned = plan(self._snapshot, ask, self._rng)
        return planned if isinstance(planned, Rejection) else apart.refusal(planned) or planned

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

    def _settle(
        self, planned: Plan, ids: Found | Miss | None, may_stay: Callable[[], bool]
    ) -> Decision | LeaveToWatch | HandOff:
        """Place and reserve. A decision that fails leaves no count."""
        lookup = self._lookup(planned, ids)
        placed = self._place(planned, lookup, ids)
        if isinstance(placed, Nobody):
            return self._refuse(planned.ask.head, _refused(planned, placed), planned.snapshot.generation)
        if apart.stays(planned.server, placed) and not may_stay():
            return LeaveToWatch()
        settled = self._reserved(planned, lookup, placed, planned.body())
        try:
            routing = settled.routing if isinstance(settled, HandOff) else settled
            routed = Routed(planned.match, planned.server, placed, routing.reservation)
            self._journal.decided(planned.ask.head, routed, planned.snapshot.generation)
        except Exception:
            self.forget(settled)
            raise
        return settled

    def _reserved(
        self, planned: Plan, lookup: Lookup, placed: Placement | Pair, body: bytes | None
    ) -> Routing | HandOff:
        server, route, removed = planned.server, planned.match.route.key, planned.removed
        request_id, asked = planned.ask.head.request_id, planned.request
        if isinstance(placed, Pair):
            decode = placed.decode
            if placed.prefill is not None and asked is not None:
                first = placed.prefill.chosen.endpoint
                answer, prompt = self._legs.reserve(
                    server.key, route, request_id, asked, lookup, decode, first
                )
                routing = Routing(server.cluster, placed, answer.id, body, removed=removed)
                if not request_id:
                    # Envoy gives every request one; another gateway may not, and engines match legs by it.
                    request_id = f"{self._rng.getrandbits(128):032x}"
                    routing = replace(routing, headers=(("x-request-id", request_id),))
                return apart.hand_off(planned, asked, placed, placed.prefill, routing, prompt.id, request_id)
        else:
            decode = placed
        reservation = self._fleet.reserve(server.key, route, request_id, asked, lookup, decode)
        return Routing(server.cluster, placed, reservation.id, body, removed=removed)

    def _lookup(self, planned: Plan, ids: Found | Miss | None) -> Lookup:
        known = ids.ids if isinstance(ids, Found) else None
        return self._fleet.lookup(planned.server, planned.request, planned.adapter, known)

    def _place(self, planned: Plan, lookup: Lookup, ids: Found | Miss | None) -> Placement | Pair | Nobody:
        notes = _notes(planned, lookup, ids)
        prompt = Prompt(lookup.tokens, planned.adapter, lookup.kind)
        scheduler = self._schedulers[planned.server.key]
        disaggregation = planned.server.disaggregation
        if disaggregation is None:
            pool = self._fleet.pool(planned.endpoints, prompt, lookup, notes)
            return scheduler.place(pool, self._rng, self._turn())
        decodes = self._fleet.pool(planned.endpoints, prompt, lookup, notes, "decode")
        prefills = None
        if planned.prefill:
            prefills = self._fleet.pool(planned.prefill, prompt, lookup, notes, "prefill")
        terms = apart.terms(disaggregation, planned.request)
        placed = pair.choose(scheduler, decodes, prefills, terms, self._rng, self._turn())
        alone = isinstance(placed, Pair) and placed.why_in_short() == "no-prefill"
        if alone and not disaggregation.decode_alone:
            return Nobody("no-pair", prompt, (), len(decodes), notes, "decode")
        return placed


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
