"""`kvcache-aware`: engines that say they have the beginning of the prompt in their KV cache."""

from collections.abc import Iterator
from random import Random

from extproc.schedule.matched import limit, matched
from extproc.schedule.plugin import Args, Positive, Scorer, without_effect
from extproc.schedule.pool import Pool

_USUAL = (128, 16)
"""Blocks and tokens per block where only one of them is given: Kthena's defaults."""

_VLLM_PORT, _SGLANG_PORT = 8000, 30000
"""Kthena's defaults."""


class KvcacheAwareArgs(Args, frozen=True):
    """By default the whole prompt counts."""

    block_size_to_hash: Positive | None = None
    """Tokens per block of `max_blocks_to_match`; blocks are compared in the size that the engine has."""
    max_blocks_to_match: Positive | None = None
    """Only so many blocks at the beginning of a prompt count."""
    vllm_tokenizer_port: int = _VLLM_PORT
    sglang_tokenizer_port: int = _SGLANG_PORT

    def faults(self) -> Iterator[tuple[str, str]]:
        because = "an engine that must be asked for token ids is asked at its own port"
        yield from without_effect("vllmTokenizerPort", self.vllm_tokenizer_port, _VLLM_PORT, because)
        yield from without_effect("sglangTokenizerPort", self.sglang_tokenizer_port, _SGLANG_PORT, because)


class KvcacheAware(Scorer):
    """The share of the prompt that the engine has cached, as its KV events tell.

    Where that is not known in time, it is what our own placements tell, and the figures say so.
    """

    wants_exact = True

    def __init__(self, args: KvcacheAwareArgs) -> None:
        self._most = limit(args.max_blocks_to_match, args.block_size_to_hash, _USUAL)

    def scores(self, pool: Pool, rng: Random) -> list[float]:
        return matched(pool.cached, pool.prompt.tokens, self._most)

    def raw(self, pool: Pool) -> list[str]:
        known = "by KV events" if pool.exact is not None else "approximately"
        return [f"{cached} of {pool.prompt.tokens} tokens cached, {known}" for cached in pool.cached]
