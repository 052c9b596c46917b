"""The JSON of a decision as typed values: what `Journal.explain` and a preview give."""

from typing import Any

import msgspec


class Scorer(msgspec.Struct, frozen=True):
    """A scorer and its share of the total."""

    name: str
    weight: float


class Score(msgspec.Struct, frozen=True):
    """What one scorer said of one endpoint."""

    scorer: str
    score: float
    weighted: float
    raw: str
    """The figures behind the score."""


class Engine(msgspec.Struct, frozen=True):
    """What the collector had seen of an engine."""

    age_s: float | None
    failing: str | None
    running: int | None
    waiting: int | None
    kv_usage: float | None
    ttft_s: float | None
    tpot_s: float | None


class Candidate(msgspec.Struct, frozen=True):
    """An endpoint that could be chosen."""

    pod: str
    rank: int | None
    address: str
    total: float
    in_flight: int
    pending_tokens: int
    cached_tokens: int | None
    scores: list[Score]
    engine: Engine | None


class Screened(msgspec.Struct, frozen=True):
    """An endpoint that could not."""

    pod: str
    rank: int | None
    address: str
    reason: str


class Prompt(msgspec.Struct, frozen=True):
    """What was known of the prompt."""

    tokens: int
    adapter: str | None


class Outcome(msgspec.Struct, frozen=True):
    """How the request ended."""

    end: str
    status: int
    served_by: str | None
    moved: bool
    first_byte_s: float | None
    duration_s: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    predicted_cached_tokens: int | None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint of a pool, and what spoke for it. What a refusal has not is at its default."""

    why: str
    considered: int = 0
    prompt: Prompt | None = None
    cached_by: str | None = None
    """Which index told what is cached: ``exact`` or ``approximate``."""
    scorers: list[Scorer] = []
    margin: float | None = None
    candidates: list[Candidate] = []
    """The chosen one first."""
    candidates_left_out: int = 0
    screened: list[Screened] = []
    screened_left_out: int = 0
    notes: list[str] = []


class Try(msgspec.Struct, frozen=True):
    """A prefill endpoint that was asked."""

    endpoint: str
    result: str
    """As `extproc.handoff.ledger.Result` names it."""
    seconds: float


class HandOff(msgspec.Struct, frozen=True):
    """What there is to tell where prefill and decode are apart."""

    group: str | None
    pair_score: float
    why: str
    """Why a prefill endpoint is asked, or none."""
    prefill: Choice | None
    """None: none is."""
    ending: str | None = None
    """As `extproc.handoff.ledger.Ending` names it; None while it goes on."""
    tries: list[Try] = []


class Decision(Choice, frozen=True, kw_only=True):
    """All of it. Where prefill and decode are apart, the choice is that of the decode endpoint."""

    path: str
    worker: str
    generation: int
    request_id: str = ""
    """Empty in a preview."""
    client_request_id: str | None = None
    """What the client had called it."""
    decided_at: float | None = None
    """Seconds since 1970."""
    status: int = 200
    """Of the error that the client gets instead of an engine's answer."""
    reason: str | None = None
    """Of the error, as in the header x-kvoy-reason."""
    body: Any = None
    """Of the error."""
    route: str | None = None
    rule: str | None = None
    adapter: bool = False
    server: str | None = None
    reservation: int | None = None
    handoff: HandOff | None = None
    edits: dict[str, Any] | None = None
    """Top-level fields of the body that change, to their new values; None where that is not known."""
    outcome: Outcome | None = None
