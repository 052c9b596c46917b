"""vLLM's MooncakeConnector: both legs at once; a bootstrap server says where the prefill workers are."""

from dataclasses import replace

from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.client import Client
from benchmarks.engine.transfer.dock import Dock
from benchmarks.engine.transfer.origins import Nowhere, Travel
from benchmarks.engine.transfer.part import (
    Asked,
    EngineDeathError,
    Part,
    TransferError,
    check_one_prompt,
    check_prompt_only,
)

_NEEDED = ("remote_engine_id", "remote_bootstrap_addr", "transfer_id")


class Mooncake:
    """The legs meet by ``transfer_id``. A leg of the wrong role fails an assertion of vLLM's."""

    def __init__(self, settings: EngineSettings, dock: Dock, client: Client, travel: Travel) -> None:
        self._settings = settings
        self._dock = dock
        self._client = client
        self._travel = travel

    def part(self, asked: Asked) -> Part:
        if asked.params.get("do_remote_prefill"):
            if self._settings.role == "prefill":
                raise EngineDeathError("do_remote_prefill")
            return self._decode(asked)
        if asked.params.get("do_remote_decode"):
            if self._settings.role == "decode":
                raise EngineDeathError("do_remote_decode")
            return self._prefill(asked)
        return Part(asked.works)

    def _prefill(self, asked: Asked) -> Part:
        """Without a transfer id the prompt is computed for nothing, as in vLLM, which only logs it."""
        check_prompt_only(asked)
        key = asked.params.get("transfer_id")
        if not key:
            return Part(asked.works, True)
        keep = self._dock.keeper(str(key), self._settings.transfer_timeout_s)
        return Part([replace(work, keep=keep) for work in asked.works], True)

    def _decode(self, asked: Asked) -> Part:
        """Without one of the fields nothing is asked, and the request waits for what never comes."""
        check_one_prompt(asked)
        params = asked.params
        if any(name not in params for name in _NEEDED):
            return Part([replace(work, origin=Nowhere()) for work in asked.works])
        engine_id = params["remote_engine_id"]
        bootstrap = params["remote_bootstrap_addr"]

        async def worker() -> str:
            workers = await self._client.query(bootstrap)
            if engine_id not in workers:
                raise TransferError(f"{bootstrap} knows no engine {engine_id}")
            return workers[engine_id].removeprefix("tcp://")

        origin = self._travel.from_prefill(
            asked.works[0],
            worker,
            str(params["transfer_id"]),
            engine_id=engine_id,
            timeout_s=self._settings.transfer_timeout_s,
            is_deaf=True,
        )
        return Part([replace(work, origin=origin) for work in asked.works])
