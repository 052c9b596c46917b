"""vLLM's NixlPushConnector: the decode engine registers its blocks, the prefill engine writes into them.

The two legs find each other by their request ids, so both must carry the same ``X-Request-Id``. A decode
engine that has registered hears nothing of a prefill engine that fails, and waits until its client leaves.
"""

from dataclasses import replace

from benchmarks.engine.transfer.client import at
from benchmarks.engine.transfer.connectors.nixl import NixlLegs
from benchmarks.engine.transfer.part import (
    Asked,
    EngineDeathError,
    Part,
    check_one_prompt,
)

_NEEDED = ("remote_engine_id", "remote_host", "remote_port", "tp_size", "remote_request_id")


class NixlPush(NixlLegs):
    """Both legs at once, or in any order."""

    mode = "push"

    def _key(self, asked: Asked) -> str:
        return asked.request_id

    def _decode(self, asked: Asked) -> Part:
        """As in vLLM's scheduler, which reads these keys without a look whether they are there."""
        check_one_prompt(asked)
        params = asked.params
        missing = next((name for name in _NEEDED if name not in params), None)
        if missing is not None:
            raise EngineDeathError(missing)
        origin = self._travel.from_prefill(
            asked.works[0],
            at(params["remote_host"], params["remote_port"]),
            asked.request_id,
            engine_id=params["remote_engine_id"],
            tensor_parallel_size=params["tp_size"],
            timeout_s=self._settings.transfer_timeout_s,
            is_deaf=True,
            is_patient=True,
        )
        return Part([replace(work, origin=origin) for work in asked.works])
