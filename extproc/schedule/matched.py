"""How much of a prompt is cached, as a score."""

from collections.abc import Sequence


def matched(
    cached: Sequence[int], prompt: int, most: int | None = None, top: int | None = None
) -> list[float]:
    """The cached share of a prompt (tokens), per endpoint, 0 to 1.

    Only the first `most` tokens count; None for all. Only the `top` best score, and those equal to the last
    of them, so that which ones score is no accident; None for all.
    """
    whole = prompt if most is None else min(prompt, most)
    if whole == 0:
        return [0.0] * len(cached)
    shares = [min(tokens, whole) / whole for tokens in cached]
    if top is None or top >= len(shares):
        return shares
    least = sorted(shares, reverse=True)[top - 1]
    return [share if share >= least else 0.0 for share in shares]


def limit(blocks: int | None, block_size: int | None, usual: tuple[int, int]) -> int | None:
    """How much of a prompt counts, in the unit of the block size; None if neither number is given.

    `usual` are the number of blocks and the block size where only the other one is given.
    """
    if blocks is None and block_size is None:
        return None
    return (blocks or usual[0]) * (block_size or usual[1])
