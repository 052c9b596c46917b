"""The result of scheduling: a value that also explains itself.

The evidence is columns that the decision made anyway; it is put into words only when somebody asks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from extproc.schedule.plugin import Refusal, Scorer
from extproc.schedule.pool import Pool, Prompt
from extproc.state.live import Engine, Load
from extproc.state.records import Role, label
from extproc.state.snapshot import Endpoint


class Candidate(NamedTuple):
    """An endpoint that may serve the request, as it was when the choice was made."""

    endpoint: Endpoint
    load: Load
    score: float
    """Weighed mean of the scores, 0 to 1."""
    cached: int | None
    """Prompt tokens in its cache, by the best knowledge that a scorer asked for; None where none asked."""


class Dropped(NamedTuple):
    """An endpoint that a screen dropped."""

    endpoint: Endpoint
    reason: str


class Column(NamedTuple):
    """The scores of one scorer."""

    name: str
    weight: float
    """Share in the total: all shares add up to 1."""
    scorer: Scorer
    scores: list[float]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a decision was made on, as far as it is kept."""

    pool: Pool
    """Settled; of a large pool the best endpoints only."""
    totals: list[float]
    columns: tuple[Column, ...]
    """Empty for the only endpoint: it is not scored."""
    dropped: tuple[Dropped, ...]
    """Of many, the first."""
    dropped_in_all: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a request goes: the first candidate, then the others as Envoy's retries need them."""

    candidates: tuple[Candidate, ...]
    """Best first, never empty."""
    considered: int
    """How many endpoints were ready; of prefill endpoints, those of the group."""
    evidence: Evidence

    @property
    def chosen(self) -> Candidate:
        return self.candidates[0]

    @property
    def destinations(self) -> str:
        """The endpoint list as the Endpoint Picker protocol writes it: ``ip:port,ip:port…``."""
        # Ranks of one pod have one address, and a retry shall go to another pod.
        return ",".join(dict.fromkeys([candidate.endpoint.address for candidate in self.candidates]))

    @property
    def exact(self) -> bool:
        """Whether the engines' own word of what they have cached was asked for, and known."""
        found = self.evidence.pool.looked_up
        return found is not None and found[0] == "exact"

    @property
    def margin(self) -> float | None:
        """By how much the choice outscored the next candidate; None without one.

        Below 0 where the next one would lack the prefill endpoint that it needs.
        """
        return self.chosen.score - self.candidates[1].score if len(self.candidates) > 1 else None

    @property
    def rows(self) -> int:
        """How many endpoints it remembers: its size in memory."""
        return len(self.evidence.totals) + len(self.evidence.dropped)

    def why(self) -> str:
        """The reason in one sentence."""
        dropped = self.evidence.dropped_in_all
        screened = f"; {dropped} screened out" if dropped else ""
        role = self.evidence.pool.role
        ready = _ready(self.considered, role) + (" of the group" if role == "prefill" else "")
        if self.considered == 1:
            return f"the only {ready}"
        if len(self.evidence.totals) == 1:
            return f"the only one of {ready} that is not screened out"
        return f"{self._preference()} of {ready}{self._figures()}{screened}"

    def headline(self) -> str:
        """The decision in one short line for machines: ``name=value`` pairs between blanks."""
        chosen = self.chosen
        fields = [f"pod={label(chosen.endpoint.key)}", f"score={chosen.score:.2f}"]
        if self.margin is not None:
            fields.append(f"margin={self.margin:.2f}")
        if chosen.cached is not None:
            fields.append(f"cached={chosen.cached}/{self.evidence.pool.prompt.tokens}")
        return " ".join([*fields, f"in-flight={chosen.load.requests}"])

    def explain(self) -> dict[str, Any]:
        """Everything that is remembered of the decision, as a JSON object."""
        evidence = self.evidence
        found = evidence.pool.looked_up
        candidates = list(self._told())
        return {
            "why": self.why(),
            "considered": self.considered,
            "prompt": _prompt(evidence.pool.prompt),
            "cached_by": None if found is None else found[0],
            "scorers": [{"name": name, "weight": weight} for name, weight, _, _ in evidence.columns],
            "margin": self.margin,
            "candidates": candidates,
            "candidates_left_out": self.considered - evidence.dropped_in_all - len(candidates),
            **_screened(evidence.dropped, evidence.dropped_in_all),
            "notes": list(evidence.pool.notes),
        }

    def _preference(self) -> str:
        best, second = self.chosen, next(iter(self.candidates[1:]), None)
        # Without scorers, only what else is counted with the endpoints can tell them apart.
        names = " and ".join(column.name for column in self.evidence.columns) or "prefill endpoint"
        if second is None:
            return f"best by {names} ({best.score:.2f})"
        if best.score > second.score:
            return f"best by {names} ({best.score:.2f}, next {second.score:.2f})"
        if best.score < second.score:
            return f"the only one with a prefill endpoint ({best.score:.2f}, next {second.score:.2f})"
        if best.load.requests < second.load.requests:
            return "fewest requests in flight, equal in score,"
        equals = zip(self.evidence.totals, self.evidence.pool.loads, strict=True)
        tied = sum((total, load.requests) == (best.score, best.load.requests) for total, load in equals)
        return f"one of {tied} equals"

    def _figures(self) -> str:
        chosen = self.chosen
        figures = f": {chosen.load.requests} in flight"
        if chosen.cached is not None:
            figures += f", {chosen.cached} of {self.evidence.pool.prompt.tokens} prompt tokens cached"
        return figures

    def _told(self) -> Iterator[dict[str, Any]]:
        """The rows of the evidence, the candidates first and then by total."""
        evidence = self.evidence
        pool = evidence.pool
        found = pool.looked_up
        raw = [column.scorer.raw(pool) for column in evidence.columns]
        place = {candidate.endpoint.key: at for at, candidate in enumerate(self.candidates)}
        keys = [endpoint.key for endpoint in pool.endpoints]
        order = sorted(
            range(len(pool)), key=lambda at: (place.get(keys[at], len(place)), -evidence.totals[at])
        )
        for at in order:
            yield {
                **_named(pool.endpoints[at]),
                "total": evidence.totals[at],
                "in_flight": pool.loads[at].requests,
                "pending_tokens": pool.loads[at].tokens,
                "cached_tokens": None if found is None else found[1][at],
                "scores": [
                    {
                        "scorer": column.name,
                        "score": column.scores[at],
                        "weighted": column.scores[at] * column.weight,
                        "raw": figures[at],
                    }
                    for column, figures in zip(evidence.columns, raw, strict=True)
                ],
                "engine": _engine(pool.engines[at], pool.age_s(at)),
            }


@dataclass(frozen=True, slots=True)
class Nobody:
    """No endpoint may serve the request: the screens dropped them all."""

    reason: Refusal
    prompt: Prompt
    dropped: tuple[Dropped, ...]
    """Of many, the first."""
    considered: int
    notes: tuple[str, ...]
    role: Role | None = None
    """What the endpoints would do of the request; None: all of it."""

    @property
    def rows(self) -> int:
        """How many endpoints it remembers: its size in memory."""
        return len(self.dropped)

    def why(self) -> str:
        """The reason in one sentence."""
        if self.reason == "no-pair":
            return "no group has both a prefill and a decode endpoint ready"
        reason, ready = self.dropped[0].reason, _ready(self.considered, self.role)
        if self.considered == 1:
            return f"the only {ready} was screened out: {reason}"
        return f"all {ready} were screened out (the first: {reason})"

    def explain(self) -> dict[str, Any]:
        """As `Placement.explain`, without candidates."""
        return {
            "why": self.why(),
            "considered": self.considered,
            "prompt": _prompt(self.prompt),
            **_screened(self.dropped, self.considered),
            "notes": list(self.notes),
        }


def _ready(count: int, role: Role | None) -> str:
    """So many endpoints; of a single one, without the number."""
    kind = "ready endpoint" if role is None else f"ready {role} endpoint"
    return kind if count == 1 else f"{count} {kind}s"


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {"tokens": prompt.tokens, "adapter": prompt.adapter}


def _named(endpoint: Endpoint) -> dict[str, Any]:
    return {"pod": label(endpoint.pod), "rank": endpoint.rank, "address": endpoint.address}


def _screened(dropped: tuple[Dropped, ...], in_all: int) -> dict[str, Any]:
    screened = [{**_named(endpoint), "reason": reason} for endpoint, reason in dropped]
    return {"screened": screened, "screened_left_out": in_all - len(dropped)}


def _engine(engine: Engine | None, age_s: float | None) -> dict[str, Any] | None:
    """What the collector saw, without what is said elsewhere; None where nothing fresh is known."""
    if engine is None:
        return None
    return {
        "age_s": age_s,
        "failing": engine.failing,
        "running": engine.running,
        "waiting": engine.waiting,
        "kv_usage": engine.kv_usage,
        "ttft_s": engine.ttft_s,
        "tpot_s": engine.tpot_s,
    }
