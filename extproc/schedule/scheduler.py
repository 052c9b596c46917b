"""A profile at work: screen, score, weigh, pick."""

from collections.abc import Sequence
from random import Random

from extproc.schedule import catalogue
from extproc.schedule.placement import Candidate, Column, Dropped, Evidence, Nobody, Placement
from extproc.schedule.plugin import Refusal, Scorer, Screen
from extproc.schedule.pool import Pool
from extproc.state.records import Profile

LIST_LENGTH = 5
"""Endpoints named per request: the choice and up to four to retry on, as Kthena tries."""

LARGE = 64
"""Pools above this size are remembered in part."""

REMEMBERED = 32
"""Endpoints of a large pool that the evidence keeps: the best, and the first that were screened out."""


class Scheduler:
    """Chooses endpoints as one profile says. Holds no state between decisions."""

    def __init__(self, screens: Sequence[Screen], scorers: Sequence[tuple[str, float, Scorer]]) -> None:
        """`scorers` are names, weights above 0, and the scorers themselves.

        Without a scorer the endpoint with the fewest requests in flight is chosen.
        """
        whole = sum(weight for _, weight, _ in scorers)
        self._screens = tuple(screens)
        self._scorers = tuple((name, weight / whole, scorer) for name, weight, scorer in scorers)

    @classmethod
    def of(cls, profile: Profile) -> "Scheduler":
        """Raises catalogue.UnknownPlugin or msgspec.ValidationError on a profile that was not checked."""
        return cls(
            [catalogue.screen(plugin) for plugin in profile.screens],
            [(plugin.name, plugin.weight, catalogue.scorer(plugin)) for plugin in profile.scorers],
        )

    @property
    def wants_exact(self) -> bool:
        """Some scorer reads `Pool.exact`: find the prompt's token ids first."""
        return any(scorer.wants_exact for _, _, scorer in self._scorers)

    def place(self, pool: Pool, rng: Random, turn: float = 0.0) -> Placement | Nobody:
        """Choose among the endpoints of a pool, which is not empty.

        Ties go to the endpoint with fewer requests in flight, and then to the next one in the order of the
        pool. For a prompt that is cached somewhere, that is counted from a place that all prompts of its kind
        have in common; else from `turn` (share of the pool, 0 up to but not including 1). A pool of one
        endpoint is screened but not scored.
        """
        considered = len(pool)
        dropped: tuple[Dropped, ...] = ()
        reasons = self._reasons(pool)
        if reasons:
            dropped = tuple([Dropped(pool.endpoints[at], r) for at, r in enumerate(reasons) if r is not None])
            if len(dropped) == considered:
                return Nobody(self._refusal(pool), pool.prompt, _first(dropped), considered, pool.notes)
            pool = pool.keep([at for at, reason in enumerate(reasons) if reason is None])
        columns = self._columns(pool, rng) if len(pool) > 1 else ()
        totals = _totals(columns, len(pool))
        chosen = _best(totals, pool, turn)
        found = pool.looked_up
        cached = [None] * len(pool) if found is None else found[1]
        candidates = tuple(
            [Candidate(pool.endpoints[at], pool.loads[at], totals[at], cached[at]) for at in chosen]
        )
        return Placement(candidates, considered, _evidence(pool, totals, columns, chosen, dropped))

    def _reasons(self, pool: Pool) -> list[str | None]:
        """Per endpoint the first reason against it; empty where all stay.

        Each screen sees the whole pool, so their order decides nothing.
        """
        columns = [column for column in (_asleep(pool), *self._dropping(pool)) if any(column)]
        if len(columns) < 2:
            return columns[0] if columns else []
        return [next(filter(None, row), None) for row in zip(*columns, strict=True)]

    def _dropping(self, pool: Pool) -> list[list[str | None]]:
        return [screen.reasons(pool) for screen in self._screens]

    def _refusal(self, pool: Pool) -> Refusal:
        """The refusal of the screen that drops all by itself; several together leave hope for later."""
        for screen, column in zip(self._screens, self._dropping(pool), strict=True):
            if all(column):
                return screen.refusal
        return "saturated"

    def _columns(self, pool: Pool, rng: Random) -> tuple[Column, ...]:
        return tuple(
            [Column(name, share, scorer, scorer.scores(pool, rng)) for name, share, scorer in self._scorers]
        )


def _asleep(pool: Pool) -> list[str | None]:
    """Engines that take requests and do not answer; if all are like that, one of them may yet wake up."""
    asleep = [engine is not None and engine.asleep for engine in pool.engines]
    if True not in asleep or False not in asleep:
        return []
    return ["asleep or paused" if each else None for each in asleep]


def _totals(columns: tuple[Column, ...], length: int) -> list[float]:
    """The weighed means; column by column, which takes a fifth of the time that row by row does."""
    if not columns:
        return [1.0] * length
    first, *others = columns
    totals = [first.weight * score for score in first.scores]
    for _, weight, _, scores in others:
        totals = [total + weight * score for total, score in zip(totals, scores, strict=True)]
    return totals


def _best(totals: list[float], pool: Pool, turn: float) -> list[int]:
    """Positions of the best, in order. Only what can be listed is compared in full."""
    contenders: Sequence[int] = range(len(totals))
    if len(totals) > LIST_LENGTH:
        least = sorted(totals, reverse=True)[LIST_LENGTH - 1]
        contenders = [at for at, total in enumerate(totals) if total >= least]
    length = len(totals)
    found = pool.looked_up
    warm = found is not None and any(found[1][at] for at in contenders)
    first = pool.prompt.kind % length if warm else int(turn * length)
    loads = pool.loads
    ranked = sorted([(-totals[at], loads[at].requests, (at - first) % length, at) for at in contenders])
    return [at for _, _, _, at in ranked[:LIST_LENGTH]]


def _evidence(
    pool: Pool,
    totals: list[float],
    columns: tuple[Column, ...],
    chosen: list[int],
    dropped: tuple[Dropped, ...],
) -> Evidence:
    if len(pool) > LARGE:
        kept = _remembered(totals, chosen)
        pool = pool.keep(kept)
        totals = [totals[at] for at in kept]
        columns = tuple(column._replace(scores=[column.scores[at] for at in kept]) for column in columns)
    return Evidence(pool.settled(), totals, columns, _first(dropped), len(dropped))


def _first(dropped: tuple[Dropped, ...]) -> tuple[Dropped, ...]:
    return dropped if len(dropped) <= LARGE else dropped[:REMEMBERED]


def _remembered(totals: list[float], chosen: list[int]) -> list[int]:
    """The candidates, and the best of the others."""
    least = sorted(totals, reverse=True)[REMEMBERED - 1]
    others = [at for at, total in enumerate(totals) if total >= least and at not in chosen]
    return (chosen + others)[:REMEMBERED]
