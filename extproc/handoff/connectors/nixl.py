"""``nixl``: vLLM's NixlConnector. The decode engine pulls from the prefill engine.

The prefill engine keeps the prompt's blocks under a lease and answers where they are; the decode engine must
be told in its own words. Once that has pulled them, the blocks may hold another prompt, and who pulls again
is not told: no second attempt may carry the parameters, whatever became of the first.
"""

from extproc.handoff.connector import Connector, Leg, NoParameters, Reply, Transfer

_PREFILL = (
    b'{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,'
    b'"remote_block_ids":null,"remote_host":null,"remote_port":null}'
)
"""All keys, as vLLM's first versions want them."""


class Nixl(Connector):
    """``kv_transfer_params`` of the prefill engine's answer, passed on verbatim."""

    order = "sequential"
    tries = 1

    def prefill(self, transfer: Transfer) -> Leg:
        return Leg({"kv_transfer_params": _PREFILL})

    def decode(self, transfer: Transfer, reply: Reply | None) -> Leg:
        if reply is None or reply.params is None:
            raise NoParameters("kv_transfer_params are absent or null")
        return Leg({"kv_transfer_params": bytes(reply.params)})
