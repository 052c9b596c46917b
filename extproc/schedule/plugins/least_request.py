"""`least-request`: engines with little to do; as a screen, without those that have a long queue."""

from random import Random

from extproc.schedule.neutral import filled
from extproc.schedule.plugin import Args, Positive, Scorer, Screen
from extproc.schedule.pool import Pool

_WAITING = 100
"""A waiting request counts like this many running ones: Kthena's constant."""


class LeastRequestArgs(Args, frozen=True):
    """The screen drops engines in which this many requests wait, or more."""

    max_waiting_requests: Positive = 10


class LeastRequestScreen(Screen):
    """Keeps engines whose queue is short, or not known."""

    def __init__(self, args: LeastRequestArgs) -> None:
        self._limit = args.max_waiting_requests

    def reasons(self, pool: Pool) -> list[str | None]:
        limit = self._limit
        waiting = [0 if engine is None else engine.waiting or 0 for engine in pool.engines]
        return [f"{count} requests wait (limit {limit})" if count >= limit else None for count in waiting]


class LeastRequestScorer(Scorer):
    """``(most - base) / most`` with ``base = in flight + 100 × min(max(in flight - running, 0), waiting)``.

    In flight are the requests of all workers as of now, running and waiting are what the engine last said: a
    request that it has not counted yet is not one that waits, so at most so many wait as it says. Where that
    is not known, the part that waits is taken as the mean of the others.
    """

    def __init__(self, args: LeastRequestArgs) -> None:
        """The argument is the screen's."""

    def scores(self, pool: Pool, rng: Random) -> list[float]:
        waiting = filled(_waiting(pool), 0.0)
        bases = [load.requests + _WAITING * wait for load, wait in zip(pool.loads, waiting, strict=True)]
        most = max(bases)
        return [(most - base) / most for base in bases] if most else [1.0] * len(bases)

    def raw(self, pool: Pool) -> list[str]:
        return [
            f"{load.requests} in flight, " + ("waiting unknown" if wait is None else f"{wait:.0f} waiting")
            for load, wait in zip(pool.loads, _waiting(pool), strict=True)
        ]


def _waiting(pool: Pool) -> list[float | None]:
    """Requests in flight that wait in the engine's queue; None where it is not known what it does."""
    return [
        None
        if engine is None or engine.running is None
        else max(min(load.requests - engine.running, engine.waiting or 0), 0)
        for load, engine in zip(pool.loads, pool.engines, strict=True)
    ]
