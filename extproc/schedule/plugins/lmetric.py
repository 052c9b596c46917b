"""`lmetric`: the engine with the least work to do before it can answer. The default.

The cost of an engine is

    (1 + uncached + cached / 16 + pending) × (in flight + 1)

with, in tokens, the part of the prompt that it has not cached, the part that it has, and what it still has
to compute for requests placed there before. The first factor is the time until this prompt is computed, the
second how many others share the engine meanwhile. It needs no weights: nothing has to say how fast the
engines are, or how much load counts against locality.

A cached token costs a sixteenth of an uncached one, not nothing. Were it free, an engine with the whole
prompt would cost next to nothing however many requests it serves, and a prefix that everybody shares would
pile up on one engine. So, with 15 requests in flight, such an engine costs as much as an idle one without the
prefix, and the prefix spreads. The 1 keeps the product meaningful for an empty prompt: then the fewest
requests in flight decide.
"""

from random import Random

from extproc.schedule.plugin import Args, Scorer
from extproc.schedule.pool import Pool

_FREE = 15 / 16
"""Share of a cached token's cost that the cache saves."""


class LmetricArgs(Args, frozen=True):
    """`exact` looks prompts up by their token ids, as `kvcache-aware` does."""

    exact: bool = False


class Lmetric(Scorer):
    """Scores by cost: the lowest over the endpoint's own."""

    def __init__(self, args: LmetricArgs) -> None:
        self.wants_exact = args.exact

    def scores(self, pool: Pool, rng: Random) -> list[float]:
        costs = _costs(pool)
        least = min(costs)
        return [least / cost for cost in costs]

    def raw(self, pool: Pool) -> list[str]:
        tokens = pool.prompt.tokens
        return [
            f"cost {cost:.0f}: {tokens - cached} uncached + {cached}/16 cached + {pending} pending tokens, "
            f"{requests} in flight"
            for cost, (requests, pending), cached in zip(_costs(pool), pool.loads, pool.cached, strict=True)
        ]


def _costs(pool: Pool) -> list[float]:
    prompt = pool.prompt.tokens + 1
    return [
        (prompt - _FREE * cached + pending) * (requests + 1)
        for (requests, pending), cached in zip(pool.loads, pool.cached, strict=True)
    ]
