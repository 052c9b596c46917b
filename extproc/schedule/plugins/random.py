"""`random`: any endpoint, as likely as the others."""

from random import Random

from extproc.schedule.plugin import Args, Scorer
from extproc.schedule.pool import Pool


class Uniform(Scorer):
    """A draw per endpoint."""

    def __init__(self, args: Args) -> None:
        """Takes no arguments."""

    def scores(self, pool: Pool, rng: Random) -> list[float]:
        return [rng.random() for _ in pool.endpoints]

    def raw(self, pool: Pool) -> list[str]:
        return ["drawn"] * len(pool)
