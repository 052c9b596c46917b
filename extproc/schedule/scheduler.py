"""A profile at work: screen, score, weigh, pick."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from extproc.schedule import catalogue
from extproc.schedule.placement import Candidate, Column, Dropped, Evidence, Nobody, Placement
from extproc.schedule.plugin import Refusal, Scorer, Screen
from extproc.schedule.pool import Pool
from extproc.state.records import Profile

LIST_LENGTH = 5
"""Endpoints named per request: the choice and up to four to retry on, as Kthena tries."""

BLIND_AFTER_S = 10.0
"""An engine that was last observed so long ago, and fails since, is screened out. One that is only busy may
be late a few times, and must not lose its traffic for that; until then Envoy's retries hide a dead one."""

LARGE = 64
"""Pools above this size are remembered in part."""

REMEMBERED = 32
"""Endpoints of a large pool that the evidence keeps: the best, and the first that were screened out."""


class Judged(NamedTuple):
    """The endpoints of a pool that no screen dropped, and what the scorers say of them. None is picked."""

    pool: Pool
    totals: list[float]
    """Weighed means of the scores, 0 to 1."""
    columns: tuple[Column, ...]
    """Empty where at most one endpoint is left: it is not scored."""
    dropped: tuple[Dropped, ...]
    considered: int
    """Endpoints before any was dropped."""

    def best(self, turn: float, among: Sequence[int] | None = None) -> list[int]:
        """Positions of the best, at most LIST_LENGTH of them, in order; of `among`, if given, else of all.

        Ties go to the endpoint with fewer requests in flight, and then to the next one in the order of the
        pool. For a prompt that is cached somewhere, that is counted from a place that all prompts of its kind
        have in common; else from `turn` (share of the pool, 0 up to but not including 1).
        """
        if among is None:
            return _best(self.totals, self.pool, turn)
        return [among[at] for at in _best([self.totals[at] for at in among], self.pool.keep(among), turn)]

    def keep(self, positions: Sequence[int]) -> "Judged":
        """Of these endpoints alone; their scores stay, and what was dropped."""
        return self._replace(
            pool=self.pool.keep(positions),
            totals=[self.totals[at] for at in positions],
            columns=tuple([c._replace(scores=[c.scores[at] for at in positions]) for c in self.columns]),
        )

    def placed(self, positions: Sequence[int]) -> Placement:
        """A placement on the endpoints at these positions, in this order; at least one."""
        pool, totals = self.pool, self.totals
        found = pool.looked_up
        cached = [None] * len(pool) if found is None else found[1]
        candidates = tuple(
            [Candidate(pool.endpoints[at], pool.loads[at], totals[at], cached[at]) for at in positions]
        )
        kept = self if len(pool) <= LARGE else self.keep(_remembered(totals, positions))
        evidence = Evidence(
            kept.pool.settled(), kept.totals, kept.columns, first(self.dropped), len(self.dropped)
        )
        return Placement(candidates, self.considered, evidence)


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
        """Choose among the endpoints of a pool, which is not empty; `Judged.best` tells about ties."""
        judged = self.judge(pool, rng)
        return judged if isinstance(judged, Nobody) else judged.placed(judged.best(turn))

    def judge(self, pool: Pool, rng: Random) -> Judged | Nobody:
        """Screen and score the endpoints of a pool. A pool of one endpoint is screened but not scored."""
        considered = len(pool)
        dropped: tuple[Dropped, ...] = ()
        reasons = self._reasons(pool)
        if reasons:
            dropped = tuple([Dropped(pool.endpoints[at], r) for at, r in enumerate(reasons) if r is not None])
            if len(dropped) == considered:
                return Nobody(
                    self._refusal(pool), pool.prompt, first(dropped), considered, pool.notes, pool.role
                )
            pool = pool.keep([at for at, reason in enumerate(reasons) if reason is None])
        columns = self._columns(pool, rng) if len(pool) > 1 else ()
        return Judged(pool, _totals(columns, len(pool)), columns, dropped, considered)

    def _reasons(self, pool: Pool) -> list[str | None]:
        """Per endpoint the first reason against it; empty where all stay.

        Each screen sees the whole pool, so their order decides nothing.
        """
        columns = [column for column in (_unfit(pool), *self._dropping(pool)) if any(column)]
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


def _unfit(pool: Pool) -> list[str | None]:
    """Engines that do not answer, as far as that can be seen from outside; empty where none is like that.

    That an engine sleeps is a fact. That it cannot be observed is a hint, and where it is so of most of them,
    more likely the observer's trouble than theirs. If nobody is left, one of them may yet answer.
    """
    suspects = [
        engine is not None and (engine.asleep or engine.failing is not None) for engine in pool.engines
    ]
    if True not in suspects:
        return []
    asleep = ["asleep or paused" if engine is not None and engine.asleep else None for engine in pool.engines]
    blind = [_blind(pool, at) for at in range(len(pool))]
    either = [fact or hint for fact, hint in zip(asleep, blind, strict=True)]
    if 2 * sum(map(bool, blind)) <= len(pool) and None in either:
        return either
    return asleep if None in asleep else []


def _blind(pool: Pool, at: int) -> str | None:
    """What is said of an engine that a collector could observe, and cannot any more."""
    engine, age_s = pool.engines[at], pool.age_s(at)
    if engine is None or engine.failing is None or age_s is None or age_s < BLIND_AFTER_S:
        return None
    return f"can not be observed any more: {engine.failing}"


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


def first(dropped: tuple[Dropped, ...]) -> tuple[Dropped, ...]:
    """What the evidence keeps of those that were dropped: of many, the first."""
    return dropped if len(dropped) <= LARGE else dropped[:REMEMBERED]


def _remembered(totals: list[float], chosen: Sequence[int]) -> list[int]:
    """The candidates, and the best of the others."""
    least = sorted(totals, reverse=True)[REMEMBERED - 1]
    others = [at for at, total in enumerate(totals) if total >= least and at not in chosen]
    return [*chosen, *others][:REMEMBERED]
