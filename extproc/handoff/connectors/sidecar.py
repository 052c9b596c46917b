"""``sidecar``: a routing proxy on the decode pod asks the prefill endpoint; we only say which."""

from extproc.handoff.connector import Connector, Leg, Reply, Transfer
from extproc.state.envoy import PREFILLER_HEADER


class Sidecar(Connector):
    """One header on the answer's leg; without it the proxy lets its own engine compute the prompt."""

    order = "sidecar"

    def prefill(self, transfer: Transfer) -> Leg:
        return Leg()

    def decode(self, transfer: Transfer, reply: Reply | None) -> Leg:
        return Leg(headers={PREFILLER_HEADER: transfer.address})
