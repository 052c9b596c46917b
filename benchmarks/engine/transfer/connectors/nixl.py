"""vLLM's NixlConnector: the prefill engine answers where its blocks are, the decode engine pulls them."""

import secrets
from dataclasses import replace
from typing import ClassVar

from benchmarks.engine.batch import Prefilled
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.client import at
from benchmarks.engine.transfer.dock import Dock
from benchmarks.engine.transfer.origins import Nowhere, Travel
from benchmarks.engine.transfer.part import (
    Asked,
    EngineDeathError,
    Part,
    check_one_prompt,
    check_prompt_only,
)
from benchmarks.engine.transfer.server import KvServer

_NEEDED = ("remote_engine_id", "remote_request_id", "remote_host", "remote_port")
_SUFFIX_BYTES = 4


class NixlLegs:
    """What both of vLLM's NIXL connectors have in common: how a leg is told, and the prompt's leg."""

    mode: ClassVar[str]
    """``transfer_mode`` of a prefill engine's answer."""

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

    def _key(self, asked: Asked) -> str:
        """The name under which a prefill engine keeps the blocks."""
        raise NotImplementedError

    def _decode(self, asked: Asked) -> Part:
        raise NotImplementedError

    def _prefill(self, asked: Asked) -> Part:
        check_prompt_only(asked)
        key = self._key(asked)
        keep = self._dock.keeper(key, self._settings.kv_lease_s)
        works = [replace(work, keep=keep) for work in asked.works]
        return Part(works, True, lambda prefilled: self._params(key, prefilled))

    def _params(self, key: str, prefilled: Prefilled) -> dict[str, object]:
        """``kv_transfer_params`` of a prefill engine's answer, in vLLM's order."""
        prompt = len(prefilled.job.prompt)
        blocks = -(-prompt // self._settings.block_size)
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [list(range(1, blocks + 1))],
            "remote_engine_id": self._dock.engine_id,
            "remote_request_id": key,
            "remote_host": self._settings.host,
            "remote_port": self._server.port,
            "tp_size": self._settings.tensor_parallel_size,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": prompt,
            "remote_blocks_expiry_time": None,
            "transfer_mode": self.mode,
            "remote_prefill_cached_tokens": prefilled.reused,
        }


class Nixl(NixlLegs):
    """Prefill first, then decode with what the prefill engine answered."""

    mode = "pull"

    def _key(self, asked: Asked) -> str:
        return f"{asked.request_id}-{secrets.token_hex(_SUFFIX_BYTES)}"

    def _decode(self, asked: Asked) -> Part:
        """As in vLLM's scheduler: without block ids an assertion fails, without the rest nothing is asked."""
        check_one_prompt(asked)
        params = asked.params
        if not params.get("remote_block_ids"):
            raise EngineDeathError("remote_block_ids")
        if any(name not in params for name in _NEEDED):
            return Part([replace(work, origin=Nowhere()) for work in asked.works])
        origin = self._travel.from_prefill(
            asked.works[0],
            at(params["remote_host"], params["remote_port"]),
            params["remote_request_id"],
            engine_id=params["remote_engine_id"],
            tensor_parallel_size=params.get("tp_size", 1),
        )
        cached = params.get("remote_prefill_cached_tokens")
        reused = cached if isinstance(cached, int) else None
        return Part([replace(work, origin=origin, reused=reused) for work in asked.works])
