"""``nixl-push``: vLLM's NixlPushConnector. The prefill engine writes to the decode engine that registers.

The engines match their two halves by the request's id less a random end, so both legs carry one
``x-request-id``. Only the first decode engine that registers is written to: no second attempt may carry the
parameters.
"""

import msgspec

from extproc.handoff.connector import Connector, Leg, Reply, Transfer

_IDS = {"chat": "chatcmpl-{}", "completions": "cmpl-{}-0", "messages": "chatcmpl-{}"}
"""API to how vLLM names a request there. ``/v1/responses`` names it at random: the halves never meet."""


class NixlPush(Connector):
    """All parameters of the decode engine are known before the prompt is computed."""

    order = "concurrent"
    tries = 1
    apis = frozenset(_IDS)

    def prefill(self, transfer: Transfer) -> Leg:
        return Leg({"kv_transfer_params": b'{"do_remote_decode":true,"do_remote_prefill":false}'})

    def decode(self, transfer: Transfer, reply: Reply | None) -> Leg:
        params = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_engine_id": transfer.engine_id,
            "remote_host": transfer.source.host,
            "remote_port": transfer.source.port,
            "tp_size": transfer.tensor_parallel,
            "remote_request_id": _IDS[transfer.api].format(transfer.request_id),
        }
        return Leg({"kv_transfer_params": msgspec.json.encode(params)})
