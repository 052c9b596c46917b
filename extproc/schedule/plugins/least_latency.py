"""`least-latency`: engines that have answered quickly of late."""

from random import Random
from typing import Annotated

import msgspec

from extproc.schedule.neutral import filled
from extproc.schedule.plugin import Args, Scorer
from extproc.schedule.pool import Pool


class LeastLatencyArgs(Args, frozen=True):
    """How much the time to the first token counts (1: alone) against the time per output token (0: alone)."""

    ttft_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = msgspec.field(
        default=0.5, name="TTFTTPOTWeightFactor"
    )


class LeastLatency(Scorer):
    """``α × (most - ttft) / (most - least) + (1 - α) ×`` the same of the time per output token.

    Unknown times count as the mean of the others, so an engine that never answered is tried.
    """

    def __init__(self, args: LeastLatencyArgs) -> None:
        self._share = args.ttft_share

    def scores(self, pool: Pool, rng: Random) -> list[float]:
        share = self._share
        first = _quickness([None if engine is None else engine.ttft_s for engine in pool.engines])
        following = _quickness([None if engine is None else engine.tpot_s for engine in pool.engines])
        return [share * ttft + (1 - share) * tpot for ttft, tpot in zip(first, following, strict=True)]

    def raw(self, pool: Pool) -> list[str]:
        return [
            "unknown"
            if engine is None
            else f"first token {_said(engine.ttft_s)}, each further {_said(engine.tpot_s)}"
            for engine in pool.engines
        ]


def _quickness(times: list[float | None]) -> list[float]:
    known = [time for time in times if time is not None]
    most, least = max(known, default=0.0), min(known, default=0.0)
    span = most - least
    return filled([None if t is None else (most - t) / span if span else 1.0 for t in times], 1.0)


def _said(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1000:.0f} ms"
