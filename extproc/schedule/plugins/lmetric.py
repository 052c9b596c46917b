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

Where prefill and decode are apart (`Pool.role`), an engine does half of that. A prefill engine computes one
prompt after the other, so it counts, in tokens, when this one's turn is over:

    1 + uncached + cached / 16 + pending + 256 × in flight

Others share nothing of that time, so there is no product. But a request in flight costs something by itself:
its tokens stop to be pending when they should be computed, and an engine that hangs then looks idle.

A decode engine computes all its answers together, as far as its KV cache has room for them:

    (256 × (in flight + 1) + uncached + pending) / room

An answer is taken to have 256 tokens, and each of them delays the others in the batch by about the time in
which a token of a prompt is computed. Uncached tokens arrive computed, in about a sixteenth of that time; yet
they count in full, for somebody has to compute them, and what the prefill endpoint's own cost tells is only
which of them should. Pending are prompts that the engine computes itself. Room is the share of its KV cache
that is free with this request in it, 1/64 to 1; where that is not known, the mean of the others.
"""

from random import Random

from extproc.schedule.neutral import filled
from extproc.schedule.plugin import Args, Scorer
from extproc.schedule.pool import Pool
from extproc.state.live import Engine

_FREE = 15 / 16
"""Share of a cached token's cost that the cache saves."""

_REQUEST = 256
"""Tokens of a prompt that a request in flight counts as, where prefill and decode are apart."""

_LEAST_ROOM = 1 / 64
"""Share of a KV cache that counts as free at least: full engines are compared, too."""


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
        figures = _decode_figures(pool) if pool.role == "decode" else _figures(pool)
        return [f"cost {cost:.0f}: {figure}" for cost, figure in zip(_costs(pool), figures, strict=True)]


def _costs(pool: Pool) -> list[float]:
    match pool.role:
        case "prefill":
            return _prefill_costs(pool)
        case "decode":
            return _decode_costs(pool)
        case None:
            prompt = pool.prompt.tokens + 1
            return [
                (prompt - _FREE * cached + pending) * (requests + 1)
                for (requests, pending), cached in zip(pool.loads, pool.cached, strict=True)
            ]


def _prefill_costs(pool: Pool) -> list[float]:
    prompt = pool.prompt.tokens + 1
    return [
        prompt - _FREE * cached + pending + _REQUEST * requests
        for (requests, pending), cached in zip(pool.loads, pool.cached, strict=True)
    ]


def _decode_costs(pool: Pool) -> list[float]:
    prompt = pool.prompt.tokens
    return [
        (_REQUEST * (requests + 1) + prompt - cached + pending) / room
        for (requests, pending), cached, room in zip(pool.loads, pool.cached, _rooms(pool), strict=True)
    ]


def _rooms(pool: Pool) -> list[float]:
    """Share of each engine's KV cache that is free with this request in it."""
    prompt = pool.prompt.tokens
    known = [
        _room(engine, load.requests, prompt) for engine, load in zip(pool.engines, pool.loads, strict=True)
    ]
    return filled(known, 1.0)


def _room(engine: Engine | None, requests: int, prompt: int) -> float | None:
    if engine is None or engine.kv_usage is None:
        return None
    room = 1.0 - engine.kv_usage
    if engine.capacity_tokens:
        # Requests that came after the engine was looked at; each is taken to be as large as this one.
        unseen = 0 if engine.running is None else max(0, requests - engine.running - (engine.waiting or 0))
        room -= (unseen + 1) * prompt / engine.capacity_tokens
    return max(room, _LEAST_ROOM)


def _figures(pool: Pool) -> list[str]:
    tokens = pool.prompt.tokens
    return [
        f"{tokens - cached} uncached + {cached}/16 cached + {pending} pending tokens, {requests} in flight"
        for (requests, pending), cached in zip(pool.loads, pool.cached, strict=True)
    ]


def _decode_figures(pool: Pool) -> list[str]:
    tokens = pool.prompt.tokens
    return [
        f"{requests} in flight, {tokens - cached} uncached + {pending} pending tokens, {room:.0%} room"
        for (requests, pending), cached, room in zip(pool.loads, pool.cached, _rooms(pool), strict=True)
    ]
