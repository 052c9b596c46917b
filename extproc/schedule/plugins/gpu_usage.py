"""`gpu-usage`: engines with room in their KV cache."""

from random import Random

from extproc.schedule.neutral import filled
from extproc.schedule.plugin import Args, Scorer
from extproc.schedule.pool import Pool


class GpuUsage(Scorer):
    """``1 - usage``, with the share of KV blocks in use; unknown usage counts as the mean of the others."""

    def __init__(self, args: Args) -> None:
        """Takes no arguments."""

    def scores(self, pool: Pool, rng: Random) -> list[float]:
        free = [None if usage is None else min(max(1.0 - usage, 0.0), 1.0) for usage in _usage(pool)]
        return filled(free, 0.5)

    def raw(self, pool: Pool) -> list[str]:
        return ["unknown" if usage is None else f"{usage:.0%} of KV blocks in use" for usage in _usage(pool)]


def _usage(pool: Pool) -> list[float | None]:
    return [None if engine is None else engine.kv_usage for engine in pool.engines]
