"""Prefill and decode apart: which two endpoints, or whether one will do.

The profile's screens and scorers judge the decode endpoints and the prefill endpoints. A decode endpoint then
counts with the best prefill endpoint of its group: half of its total is its own score, the other half is that
of the prefill endpoint, or 1 where none is needed. That half is one more scorer, and explained as such.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from extproc.schedule.placement import Candidate, Column, Dropped, Nobody, Placement
from extproc.schedule.plugin import Refusal, Scorer
from extproc.schedule.pool import Pool
from extproc.schedule.scheduler import LIST_LENGTH, Judged, Scheduler, first
from extproc.state.records import label

PREFILLS_LISTED = 2
"""Prefill endpoints named per request: as many as are tried."""

_COLUMN = "prefill"
"""Under this name an explanation shows the prefill endpoint's half of a decode endpoint's total."""

Course = Literal["hop", "cached", "short", "whole", "no-prefill"]
"""How it goes: by a prefill hop; or without one, as the decode endpoint has enough of the prompt cached, the
prompt is short, the request cannot be handed off, or the group has no prefill endpoint to offer."""


@dataclass(frozen=True, slots=True)
class Terms:
    """When a prefill hop is worth it, and whether one is needed."""

    threshold: int
    """Prompt tokens that a decode endpoint lacks, below which it computes them itself."""
    decodes_alone: bool
    """Whether a decode endpoint can compute a prompt. If not, there is a hop whatever else is said here."""
    hops: str | None = None
    """Why the request cannot be handed off, as a clause; None: it can."""
    strangers: bool = True
    """Whether a retry may go to another group, where the prompt has to be computed anew."""

    def hop(self, uncached: int) -> bool:
        """Whether a decode endpoint that lacks so many tokens needs a prefill endpoint."""
        return not self.decodes_alone or (self.hops is None and uncached >= self.threshold)


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a request goes, and where its prompt is computed."""

    decode: Placement
    """The chosen endpoint, the others of its group, and those of other groups if they can decode alone."""
    prefill: Placement | None
    """Prefill endpoints of the group, best first; None: no hop."""
    partners: tuple[str, ...]
    """``ip:port`` of those of `decode` that are of the chosen one's group."""
    terms: Terms
    missing: str | None
    """Why there is no hop although one is needed, as a clause; None where that is not so."""

    @property
    def chosen(self) -> Candidate:
        """The decode endpoint."""
        return self.decode.chosen

    @property
    def destinations(self) -> str:
        """As `Placement.destinations`, of the decode endpoints."""
        return self.decode.destinations

    @property
    def group(self) -> str | None:
        """Of both endpoints."""
        return self.chosen.endpoint.group

    @property
    def score(self) -> float:
        """Mean of the decode endpoint's score and of the prefill endpoint's, 0 to 1."""
        return self.chosen.score

    @property
    def rows(self) -> int:
        """How many endpoints it remembers: its size in memory."""
        return self.decode.rows + (0 if self.prefill is None else self.prefill.rows)

    def why_in_short(self) -> Course:
        """How it goes, in one word."""
        if self.prefill is not None:
            return "hop"
        if self.missing is not None:
            return "no-prefill"
        if self.terms.hops is not None:
            return "whole"
        return "short" if self._prompt < self.terms.threshold else "cached"

    @property
    def why(self) -> str:
        """Why there is a prefill hop, or none, in one sentence."""
        own, of_all = label(self.chosen.endpoint.key), f"of {self._prompt} prompt tokens"
        match self.why_in_short():
            case "hop":
                lacks = f"lacks {self._lacking} {of_all}"
                return (
                    f"{own} {lacks if self.terms.decodes_alone else 'computes no prompts'}: {self._partner()}"
                )
            case "no-prefill":
                return f"{own} computes the {self._lacking} {of_all} that it lacks, as {self.missing}"
            case "whole":
                return f"{own} computes all of it, as the request cannot be handed off: {self.terms.hops}"
            case "short":
                return (
                    f"{own} computes all of it, as the prompt is short: {self._prompt} tokens{self._limit()}"
                )
            case "cached":
                return f"{own} computes the rest, as it lacks but {self._lacking} {of_all}{self._limit()}"

    def headline(self) -> str:
        """As `Placement.headline`, with the prefill endpoint."""
        prefill = "none" if self.prefill is None else label(self.prefill.chosen.endpoint.key)
        return f"{self.decode.headline()} prefill={prefill}"

    def explain(self) -> dict[str, Any]:
        """As `Placement.explain` of the decode endpoints; ``handoff`` tells the rest."""
        handoff = {
            "group": self.group,
            "pair_score": self.score,
            "why": self.why,
            "prefill": None if self.prefill is None else self.prefill.explain(),
        }
        return {**self.decode.explain(), "handoff": handoff}

    @property
    def _prompt(self) -> int:
        return self.decode.evidence.pool.prompt.tokens

    @property
    def _lacking(self) -> int:
        return self._prompt - (self.chosen.cached or 0)

    def _partner(self) -> str:
        assert self.prefill is not None
        return f"{label(self.prefill.chosen.endpoint.key)} of its group {self.group} computes the prompt"

    def _limit(self) -> str:
        return f" (a prefill endpoint is asked from {self.terms.threshold})"


def choose(
    scheduler: Scheduler, decodes: Pool, prefills: Pool | None, terms: Terms, rng: Random, turn: float = 0.0
) -> Pair | Nobody:
    """Choose a decode endpoint and, where one is needed, a prefill endpoint of its group.

    Every endpoint is of some group. The best total wins; ties are broken as `Judged.best` does, but who needs
    no hop comes before whose turn it is. A decode endpoint that needs a prefill endpoint, and whose group has
    none, is chosen only if all are like that.
    """
    judged = scheduler.judge(decodes, rng)
    if isinstance(judged, Nobody):
        return judged
    handed = None
    # Short prompts, and those that are cached everywhere, do without.
    if prefills is not None and any(map(terms.hop, _uncached(judged.pool))):
        handed = scheduler.judge(prefills, rng)
    partner = _Partner(terms, _best_by_group(handed))
    courses = _courses(judged.pool, partner)
    if not (courses.paired or (terms.decodes_alone and len(judged.pool))):
        return _nobody(judged, decodes, prefills, handed)
    if not terms.decodes_alone:
        judged = _without(judged, courses.paired, prefills)
        courses = _Courses([], [*range(len(judged.pool))], [])
    judged = _with(partner, judged, rng)
    at = courses.first(judged, turn)
    decode = judged.placed(
        courses.listed(judged, at, turn, strangers=terms.decodes_alone and terms.strangers)
    )
    group = decode.chosen.endpoint.group
    prefill = _prefill(handed, group, turn) if at in courses.paired else None
    missing = _missing(prefills, group) if at in courses.alone else None
    return Pair(decode, prefill, _partners(decode), terms, missing)


@dataclass(frozen=True, slots=True)
class _Partner(Scorer):
    """The score of the prefill endpoint that a decode endpoint would get; 1 if none is needed, 0 for none."""

    terms: Terms
    best: Mapping[str | None, float]
    """Group to the score of its best prefill endpoint."""

    def scores(self, pool: Pool, rng: Random) -> list[float]:
        return [
            self.best.get(endpoint.group, 0.0) if self.terms.hop(uncached) else 1.0
            for endpoint, uncached in zip(pool.endpoints, _uncached(pool), strict=True)
        ]

    def raw(self, pool: Pool) -> list[str]:
        return [
            self._raw(endpoint.group, uncached)
            for endpoint, uncached in zip(pool.endpoints, _uncached(pool), strict=True)
        ]

    def _raw(self, group: str | None, uncached: int) -> str:
        if not self.terms.hop(uncached):
            return f"no hop: {uncached} uncached tokens"
        found = f"best of group {group}" if group in self.best else f"none in group {group}"
        return f"{found}; {uncached} uncached tokens"


@dataclass(frozen=True, slots=True)
class _Courses:
    """Positions of the decode endpoints, by how it would go."""

    direct: list[int]
    """No hop is needed."""
    paired: list[int]
    """With a prefill endpoint."""
    alone: list[int]
    """A prefill endpoint is needed, and none is there."""

    def first(self, judged: Judged, turn: float) -> int:
        """The position that is chosen."""
        totals, loads = judged.totals, judged.pool.loads
        direct = set(self.direct)
        ranks = {
            at: (-totals[at], loads[at].requests, at not in direct)
            for at in [*self.direct, *self.paired] or self.alone
        }
        least = min(ranks.values())
        return judged.best(turn, [at for at, rank in ranks.items() if rank == least])[0]

    def listed(self, judged: Judged, at: int, turn: float, *, strangers: bool) -> list[int]:
        """The chosen position, the others of its group, then with `strangers` those of other groups."""
        endpoints = judged.pool.endpoints
        group = endpoints[at].group
        usual = sorted([*self.direct, *self.paired])
        own = [other for other in (*usual, *self.alone) if endpoints[other].group == group and other != at]
        listed = [at, *judged.best(turn, own)]
        for course in (usual, self.alone) if strangers and len(listed) < LIST_LENGTH else ():
            listed += judged.best(turn, [other for other in course if endpoints[other].group != group])
        return listed[:LIST_LENGTH]


def _courses(pool: Pool, partner: _Partner) -> _Courses:
    found = _Courses([], [], [])
    for at, (endpoint, uncached) in enumerate(zip(pool.endpoints, _uncached(pool), strict=True)):
        if not partner.terms.hop(uncached):
            found.direct.append(at)
        elif endpoint.group in partner.best:
            found.paired.append(at)
        else:
            found.alone.append(at)
    return found


def _partners(decode: Placement) -> tuple[str, ...]:
    group = decode.chosen.endpoint.group
    listed = [candidate.endpoint for candidate in decode.candidates]
    # Ranks of one pod have one address.
    return tuple(dict.fromkeys([endpoint.address for endpoint in listed if endpoint.group == group]))


def _prefill(handed: Judged | Nobody | None, group: str | None, turn: float) -> Placement:
    """The best of the prefill endpoints of a group, which has some."""
    assert isinstance(handed, Judged)
    own = handed.keep([at for at, each in enumerate(handed.pool.endpoints) if each.group == group])
    dropped = tuple([each for each in handed.dropped if each.endpoint.group == group])
    own = own._replace(dropped=dropped, considered=len(own.pool) + len(dropped))
    best = own.best(turn)[0]
    address = own.pool.endpoints[best].address
    # Ranks of one pod fail together.
    others = [at for at, each in enumerate(own.pool.endpoints) if each.address != address]
    return own.placed([best, *own.best(turn, others)][:PREFILLS_LISTED])


def _with(partner: _Partner, judged: Judged, rng: Random) -> Judged:
    """With the prefill endpoints' scores as half of the totals."""
    scores = partner.scores(judged.pool, rng)
    columns = tuple([column._replace(weight=column.weight / 2) for column in judged.columns])
    return judged._replace(
        totals=[(own + other) / 2 for own, other in zip(judged.totals, scores, strict=True)],
        columns=(*columns, Column(_COLUMN, 0.5, partner, scores)) if columns else (),
    )


def _best_by_group(handed: Judged | Nobody | None) -> dict[str | None, float]:
    best: dict[str | None, float] = {}
    if isinstance(handed, Judged):
        for endpoint, total in zip(handed.pool.endpoints, handed.totals, strict=True):
            best[endpoint.group] = max(total, best.get(endpoint.group, 0.0))
    return best


def _without(judged: Judged, paired: Sequence[int], prefills: Pool | None) -> Judged:
    """Without the decode endpoints that cannot do their part, as if they were screened out."""
    kept = set(paired)
    alone = [endpoint for at, endpoint in enumerate(judged.pool.endpoints) if at not in kept]
    dropped = tuple([Dropped(endpoint, _missing(prefills, endpoint.group)) for endpoint in alone])
    return judged.keep(paired)._replace(dropped=judged.dropped + dropped) if alone else judged


def _nobody(judged: Judged, decodes: Pool, prefills: Pool | None, handed: Judged | Nobody | None) -> Nobody:
    """No pair; screens are to blame where some group has both endpoints ready."""
    shared = not _groups(decodes).isdisjoint(_groups(prefills))
    if shared and isinstance(handed, Nobody):
        return handed
    dropped = first(_without(judged, (), prefills).dropped)
    reason: Refusal = "saturated" if shared else "no-pair"
    return Nobody(reason, decodes.prompt, dropped, len(decodes), decodes.notes, decodes.role)


def _missing(prefills: Pool | None, group: str | None) -> str:
    """Why a group has no prefill endpoint, as a clause."""
    if group in _groups(prefills):
        return f"every prefill endpoint of its group {group} is screened out"
    return f"no prefill endpoint of its group {group} is ready"


def _groups(pool: Pool | None) -> set[str | None]:
    return set() if pool is None else {endpoint.group for endpoint in pool.endpoints}


def _uncached(pool: Pool) -> list[int]:
    """Prompt tokens that each endpoint lacks, by the best knowledge."""
    return [pool.prompt.tokens - cached for cached in pool.cached]
