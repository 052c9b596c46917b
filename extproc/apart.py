"""What a decision has to see to where prefill and decode are apart. Pure."""

from extproc.exchange import Routing
from extproc.handoff.body import several
from extproc.handoff.connectors import CONNECTORS
from extproc.handoff.handoff import HandOff
from extproc.plan import Plan
from extproc.rejection import Rejection
from extproc.request import InferenceRequest
from extproc.schedule.pair import Pair, Terms
from extproc.schedule.placement import Placement
from extproc.state.records import Disaggregation, ModelServer

PASSED_ON = frozenset({"authorization", "traceparent", "tracestate", "x-api-key", "x-session-id"})
"""Headers of the client's that a prefill engine gets, too: without its credentials it would refuse."""


def terms(disaggregation: Disaggregation, asked: InferenceRequest | None) -> Terms:
    """Whether a request may be handed off, and whether it must."""
    if asked is None:
        return Terms(disaggregation.threshold, decodes_alone=True, hops="its body is not parsed")
    connector = CONNECTORS[disaggregation.connector]
    reason = _against(disaggregation, asked)
    return Terms(
        disaggregation.threshold, connector.decodes_alone, reason, strangers=disaggregation.decode_alone
    )


def refusal(planned: Plan) -> Rejection | None:
    """Why no two engines can compute a request, where one cannot either."""
    server, asked = planned.server, planned.request
    disaggregation = server.disaggregation
    if disaggregation is None or asked is None or CONNECTORS[disaggregation.connector].decodes_alone:
        return None
    reason = _against(disaggregation, asked)
    if reason is None:
        return None
    name = f"{server.namespace}/{server.name}"
    message = f"The pods of the ModelServer {name} compute either prompts or answers, and can not do both"
    return Rejection("not-divisible", f"{message}: {reason}. Ask for one answer to one prompt.")


def stays(server: ModelServer, placed: Placement | Pair) -> bool:
    """Whether a worker has to do with a request after its answer's leg has begun."""
    disaggregation = server.disaggregation
    if disaggregation is None or not isinstance(placed, Pair) or placed.prefill is None:
        return False
    return CONNECTORS[disaggregation.connector].order == "concurrent"


def hand_off(
    planned: Plan,
    asked: InferenceRequest,
    chosen: Pair,
    prefill: Placement,
    routing: Routing,
    reservation: int,
    request_id: str,
) -> HandOff:
    """What is left to be carried out; `reservation` is the prompt's leg's, `routing` has the answer's."""
    head, server = planned.ask.head, planned.server
    disaggregation = server.disaggregation
    assert disaggregation is not None
    return HandOff(
        connector=disaggregation.connector,
        api=asked.api,
        path=head.path,
        body=asked.body if routing.body is None else routing.body,
        headers={name: value for name, value in head.headers.items() if name in PASSED_ON},
        request_id=request_id,
        prefills=tuple([candidate.endpoint for candidate in prefill.candidates]),
        reservation=reservation,
        routing=routing,
        partners=chosen.partners,
        tls=server.tls,
        timeout_s=disaggregation.prefill_timeout_s,
        decode_alone=disaggregation.decode_alone,
        tensor_parallel=disaggregation.tensor_parallel,
    )


def _against(disaggregation: Disaggregation, asked: InferenceRequest) -> str | None:
    """What speaks against a hand-off, as a clause."""
    apis = CONNECTORS[disaggregation.connector].apis
    if apis is not None and asked.api.name not in apis:
        return f"{disaggregation.connector} can not match the two legs of {asked.api.name} requests"
    return several(asked)
