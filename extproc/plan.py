"""A request understood: its ModelServer, and all else that does not depend on the state of the engines.

Pure but for the draw among weighted ModelServers.
"""

from dataclasses import dataclass
from random import Random

import msgspec

from extproc import control, request, route, splice
from extproc.exchange import Decide, LocalAnswer
from extproc.rejection import Rejection
from extproc.request import InferenceRequest
from extproc.route import RouteMatch
from extproc.state.records import ModelServer
from extproc.state.snapshot import Endpoint, Snapshot


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that is understood, and the pool of endpoints it may go to."""

    ask: Decide
    snapshot: Snapshot
    """The configuration that it was planned on."""
    request: InferenceRequest | None
    """None where the path's body is not parsed; free of what its client must not set."""
    match: RouteMatch
    server: ModelServer
    endpoints: tuple[Endpoint, ...]
    """Those that answer clients."""
    stripped: bytes | None = None
    """The body without what its client must not set; None where nothing had to go."""

    @property
    def adapter(self) -> str | None:
        """The LoRA adapter that is asked for."""
        return self.request.model if self.match.adapter and self.request is not None else None

    @property
    def prefill(self) -> tuple[Endpoint, ...]:
        """Endpoints that only compute prompts."""
        return self.snapshot.prefill[self.server.key]

    @property
    def removed(self) -> tuple[str, ...]:
        """Headers that the client must not set."""
        return () if self.server.client_control else self.ask.head.control

    def body(self) -> bytes | None:
        """The edited body; None where it stays. An adapter keeps its name, a base model gets its server's."""
        if self.request is None:
            return self.stripped
        model = None if self.match.adapter else self.server.model
        edited = splice.rewrite(self.request, model, self.server.report_usage)
        return self.stripped if edited is None else edited


def plan(snapshot: Snapshot, ask: Decide, rng: Random) -> Plan | Rejection:
    """Everything about a decision that does not depend on the state of the engines."""
    api = request.APIS.get(ask.head.path) if ask.head.method == "POST" else None
    parsed = None if ask.body is None or api is None else request.parse(api, ask.body)
    if isinstance(parsed, Rejection):
        return parsed
    match = route.find(snapshot, ask.head, None if parsed is None else parsed.model)
    if isinstance(match, Rejection):
        return match
    server = route.draw(match.rule, rng)
    # A hand-off writes such fields itself, and an engine would take the client's.
    keeps = server.client_control and server.disaggregation is None
    stripped = None if keeps else _stripped(ask, parsed)
    if isinstance(stripped, Rejection):
        return stripped
    if stripped is not None and api is not None:
        parsed = request.parse(api, stripped)
        assert not isinstance(parsed, Rejection)
    endpoints = snapshot.endpoints[server.key]
    if not endpoints:
        return _nobody_answers(server)
    return Plan(ask, snapshot, parsed, match, server, endpoints, stripped)


def _nobody_answers(server: ModelServer) -> Rejection:
    pods = "pod" if server.disaggregation is None else "decode pod"
    name = f"{server.namespace}/{server.name}"
    return Rejection("no-ready-pod", f"The ModelServer {name} has no ready {pods}; try again later.")


def _stripped(ask: Decide, parsed: InferenceRequest | None) -> bytes | Rejection | None:
    """The body without what its client must not set; None where there is nothing of the kind."""
    if not ask.body or (parsed is not None and not parsed.control):
        return None
    stripped = control.strip(ask.body)
    return None if stripped == ask.body else stripped


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
