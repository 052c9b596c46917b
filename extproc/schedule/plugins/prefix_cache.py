"""`prefix-cache`: engines that were sent the same beginning of a prompt before."""

from collections.abc import Iterator
from random import Random

from extproc.schedule.matched import limit, matched
from extproc.schedule.plugin import Args, Positive, Scorer, without_effect
from extproc.schedule.pool import Pool

_USUAL = (128, 64)
"""Blocks and bytes per block where only one of them is given: Kthena's defaults."""

_CACHE_SIZE = 50_000
"""Kthena's default."""

_BYTES_PER_TOKEN = 4
"""Usual of text: turns Kthena's limit in bytes into tokens."""


class PrefixCacheArgs(Args, frozen=True):
    """By default the whole prompt counts, and every engine that has some of it."""

    block_size_to_hash: Positive | None = None
    """Bytes per block of `max_blocks_to_match`."""
    max_blocks_to_match: Positive | None = None
    """Only so many blocks at the beginning of a prompt count."""
    top_k_matches: Positive | None = None
    """Only so many of the best engines score, and those equal to the last of them."""
    max_hash_cache_size: int = _CACHE_SIZE

    def faults(self) -> Iterator[tuple[str, str]]:
        because = "the index remembers of each engine what its own cache can hold"
        yield from without_effect("maxHashCacheSize", self.max_hash_cache_size, _CACHE_SIZE, because)


class PrefixCache(Scorer):
    """The share of the prompt that the engine should have cached, as our own placements tell."""

    def __init__(self, args: PrefixCacheArgs) -> None:
        in_bytes = limit(args.max_blocks_to_match, args.block_size_to_hash, _USUAL)
        self._most = None if in_bytes is None else max(1, in_bytes // _BYTES_PER_TOKEN)
        self._top = args.top_k_matches

    def scores(self, pool: Pool, rng: Random) -> list[float]:
        return matched(pool.approximate, pool.prompt.tokens, self._most, self._top)

    def raw(self, pool: Pool) -> list[str]:
        whole = pool.prompt.tokens
        return [f"{cached} of {whole} tokens were sent there before" for cached in pool.approximate]
