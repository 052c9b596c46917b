"""The prompt's leg: one prefill engine is asked once."""

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from extproc.exchange import LocalAnswer, rejected
from extproc.handoff import reply
from extproc.handoff.body import prefill_body
from extproc.handoff.connector import Leg, NoParameters, Reply, Transfer
from extproc.handoff.connectors import CONNECTORS
from extproc.handoff.engines import EngineFailed, Engines
from extproc.handoff.handoff import HandOff
from extproc.handoff.ledger import Result
from extproc.rejection import Rejection
from extproc.state.envoy import RANK_HEADER
from extproc.state.snapshot import Endpoint

log = logging.getLogger("kvoy.handoff")

QUERY_S = 1.0
"""Longest wait for a bootstrap server's word."""
_OF_THE_REQUEST = (400, 413, 422)
"""Errors that every engine would answer. Of credentials, models and adapters another one may know better."""
_LONGEST_PASSED_ON = 2**20
"""Bytes of an engine's error that still reach the client."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A prefill engine has computed the prompt."""

    reply: Reply
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A prefill engine did not do its part."""

    result: Result
    status: int = 0
    """Of its answer, where that was an error."""
    body: bytes = b""

    @classmethod
    def of(cls, error: Exception) -> "Failed":
        """What an error of `Prefills` or of a connector means. What nobody foresaw is logged."""
        match error:
            case EngineFailed(kind="status", status=status) if _of_the_request(status):
                return cls("rejected", status, error.body)
            case EngineFailed():
                return cls(error.kind, error.status)
            case NoParameters():
                return cls("no-parameters")
        # Without its message, which may hold what the client sent.
        where = traceback.extract_tb(error.__traceback__)[-1]
        log.error("a defect in a hand-off: %s at %s:%s", type(error).__name__, where.filename, where.lineno)
        return cls("defect")

    @property
    def final(self) -> bool:
        """Other prefill engines would say the same."""
        return self.result == "rejected"

    def answer(self) -> LocalAnswer:
        """What the client gets if nobody computes the prompt; the engine's own words where it is to blame."""
        if self.final and len(self.body) <= _LONGEST_PASSED_ON:
            return LocalAnswer(self.status, (("content-type", "application/json"),), self.body)
        if self.result == "timeout":
            why = "No prefill endpoint computed the prompt in time; try again, or send a shorter prompt."
            return rejected(Rejection("prefill-timeout", why))
        return rejected(Rejection("prefill-failed", "No prefill endpoint computed the prompt; try again."))


class Prefills:
    """Asks prefill engines by the hand-off's connector."""

    def __init__(self, engines: Engines, rng: Random, clock: Callable[[], float]) -> None:
        """`rng` draws rooms; `clock` in seconds, from any start."""
        self._engines = engines
        self._rng = rng
        self._clock = clock

    async def transfer(self, handoff: HandOff, endpoint: Endpoint) -> Transfer:
        """A new transfer from that endpoint. Raises EngineFailed."""
        source = endpoint.source
        assert source is not None, "a prefill endpoint has a source"
        engine_id = source.engine_id
        if CONNECTORS[handoff.connector].asks_engine_id:
            within_s = min(QUERY_S, handoff.timeout_s)
            engine_id = await self._engines.engine_id(source, endpoint.rank or 0, within_s)
        return Transfer(
            request_id=handoff.request_id,
            api=handoff.api.name,
            address=endpoint.address,
            source=source,
            tensor_parallel=handoff.tensor_parallel,
            room=self._rng.getrandbits(63),
            engine_id=engine_id,
            rank=endpoint.rank,
        )

    async def compute(self, handoff: HandOff, transfer: Transfer) -> Computed:
        """Have the prompt computed. Raises EngineFailed; cancelled, it closes the connection."""
        connector = CONNECTORS[handoff.connector]
        leg = connector.prefill(transfer)
        body = prefill_body(handoff.api, handoff.body, leg.fields, as_asked=connector.passes_token)
        headers = _headers(handoff, transfer, leg)
        began = self._clock()
        try:
            raw = await self._engines.post(
                transfer.address, handoff.path, body, headers, handoff.tls, handoff.timeout_s
            )
            return Computed(reply.read(raw), self._clock() - began)
        except EngineFailed:
            self._engines.forget(transfer.source)
            raise
        except ValueError as error:
            raise EngineFailed("broken", str(error)) from error


def _headers(handoff: HandOff, transfer: Transfer, leg: Leg) -> dict[str, str]:
    rank = {} if transfer.rank is None else {RANK_HEADER: str(transfer.rank)}
    own = {"content-type": "application/json", "x-request-id": handoff.request_id}
    return {**handoff.headers, **own, **rank, **leg.headers}


def _of_the_request(status: int) -> bool:
    return status in _OF_THE_REQUEST
