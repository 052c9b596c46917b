"""vLLM's NixlPushConnector: the decode engine registers its blocks, the prefill engine writes into them.

The two legs find each other by their request ids, so both must carry the same ``X-Request-Id``. A decode
engine that has registered hears nothing of a prefill engine that fails, and waits until its client leaves.
"""

from dataclasses import replace

from benchmarks.engine.batch import Prefilled
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.client import at
from benchmarks.engine.transfer.connectors.nixl import answer_params
from benchmarks.engine.transfer.dock import Dock
from benchmarks.engine.transfer.origins import Travel
from benchmarks.engine.transfer.part import (
    Asked,
    EngineDeathError,
    Part,
    check_one_prompt,
    check_prompt_only,
)
from benchmarks.engine.transfer.server import KvServer

_NEEDED = ("remote_engine_id", "remote_host", "remote_port", "tp_size", "remote_request_id")


class NixlPush:
    """Both legs at once, or in any order."""

    def __init__(self, settings: EngineSettings, dock: Dock, server: KvServer, travel: Travel) -> None:
        self._settings = settings
        self._dock = dock
        self._server = server
        self._travel = travel

    def part(self, asked: Asked) -> Part:
        if asked.params.get("do_remote_decode"):
            return self._prefill(asked)
        if asked.params.get("do_remote_prefill"):
            return self._decode(asked)
        return Part(asked.works)

    def _prefill(self, asked: Asked) -> Part:
        check_prompt_only(asked)
        keep = self._dock.keeper(asked.request_id, self._settings.kv_lease_s)
        works = [replace(work, keep=keep) for work in asked.works]
        return Part(works, True, lambda prefilled: self._params(asked.request_id, prefilled))

    def _params(self, key: str, prefilled: Prefilled) -> dict[str, object]:
        return answer_params(self._settings, self._dock.engine_id, self._server.port, key, prefilled, "push")

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
