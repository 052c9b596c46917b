"""How an engine serves requests: a prefix cache in blocks, prefills one after the other, then decoding."""

from collections import OrderedDict
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

BYTES_PER_TOKEN = 4
_BLOCK_BYTES = 16 * BYTES_PER_TOKEN
_LEAST_S = 0.005
"""From arrival to first token where nothing is to be computed."""
_INTER_TOKEN_S = 0.005


@dataclass(frozen=True, slots=True)
class Served:
    """How one request went."""

    prompt_tokens: int
    cached_tokens: int
    ttft_s: float
    done_s: float
    """On the clock of the trace."""


class Pod:
    """One engine in the time of the trace."""

    def __init__(self, prefill_tokens_per_s: float, cache_tokens: int) -> None:
        self._rate = prefill_tokens_per_s
        self._blocks = cache_tokens * BYTES_PER_TOKEN // _BLOCK_BYTES
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._free_at = 0.0
        """When the prefills that wait are done."""

    def serve(self, at_s: float, prompt: bytes, answer_tokens: int) -> Served:
        """A request that arrives; times of arrival should not fall much."""
        hashes = _chain(prompt)
        hits = self._hits(hashes)
        tokens = len(prompt) // BYTES_PER_TOKEN
        cached = hits * _BLOCK_BYTES // BYTES_PER_TOKEN
        self._free_at = max(self._free_at, at_s) + (tokens - cached) / self._rate
        self._store(hashes)
        first = self._free_at + _LEAST_S
        return Served(tokens, cached, first - at_s, first + answer_tokens * _INTER_TOKEN_S)

    def _hits(self, hashes: list[int]) -> int:
        """Leading blocks in the cache; the last one is always computed."""
        for at, block in enumerate(hashes[:-1]):
            if block not in self._cached:
                return at
        return max(0, len(hashes) - 1)

    def _store(self, hashes: list[int]) -> None:
        # The deepest blocks become the oldest, as in vLLM.
        for block in reversed(hashes):
            self._cached[block] = None
            self._cached.move_to_end(block)
        while len(self._cached) > self._blocks:
            self._cached.popitem(last=False)


def _chain(prompt: bytes) -> list[int]:
    seed = 0
    found = []
    for start in range(0, len(prompt) - _BLOCK_BYTES + 1, _BLOCK_BYTES):
        seed = xxh3_64_intdigest(prompt[start : start + _BLOCK_BYTES], seed)
        found.append(seed)
    return found
