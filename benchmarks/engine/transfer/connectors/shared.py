"""A store that all engines share, such as LMCache's: no parameters, the same prompt on both engines.

The store is made of what the peers have cached; a real one keeps blocks for longer.
"""

from dataclasses import replace

from benchmarks.engine import cache
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.client import Client
from benchmarks.engine.transfer.origins import Peers
from benchmarks.engine.transfer.part import Asked, Part, check_prompt_only, root


class Shared:
    """The prefill engine is asked for one token; the decode engine finds the prompt's blocks."""

    def __init__(self, settings: EngineSettings, client: Client) -> None:
        self._settings = settings
        self._client = client

    def part(self, asked: Asked) -> Part:
        if self._settings.role == "prefill":
            check_prompt_only(asked)
            return Part(asked.works, True)
        if not self._settings.kv_peers:
            return Part(asked.works)
        size = self._settings.block_size
        return Part(
            [
                replace(
                    work,
                    origin=Peers(
                        self._client,
                        size,
                        len(work.prompt),
                        cache.chain(root(work), work.prompt, size),
                    ),
                )
                for work in asked.works
            ]
        )
