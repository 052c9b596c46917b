"""``mooncake``: vLLM's MooncakeConnector. Both engines meet under a transfer id.

The decode engine asks the prefill engine's bootstrap server, and has to name its engine id, which that server
tells per data-parallel rank (`asks_engine_id`). The prefill engine sends to the first who asks for the
transfer id: no second attempt may carry the parameters.
"""

import msgspec

from extproc.handoff.connector import Connector, Leg, Reply, Transfer, bracketed


class Mooncake(Connector):
    """The transfer id is drawn anew for each try, so that a failed one is never met again."""

    order = "concurrent"
    tries = 1
    asks_engine_id = True

    def prefill(self, transfer: Transfer) -> Leg:
        return _leg(do_remote_decode=True, do_remote_prefill=False, transfer_id=_transfer_id(transfer))

    def decode(self, transfer: Transfer, reply: Reply | None) -> Leg:
        source = transfer.source
        return _leg(
            do_remote_decode=False,
            do_remote_prefill=True,
            remote_bootstrap_addr=f"http://{bracketed(source.host)}:{source.port}",
            remote_engine_id=transfer.engine_id,
            transfer_id=_transfer_id(transfer),
        )


def _transfer_id(transfer: Transfer) -> str:
    return f"xfer-{transfer.request_id}-{transfer.room:x}"


def _leg(**params: bool | str) -> Leg:
    return Leg({"kv_transfer_params": msgspec.json.encode(params)})
