"""A decision for people, line by line; pure."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from extproc.ask.decision import Candidate, Decision, Outcome, Screened
from extproc.ask.table import plain, shortened, table

_SHOWN = 12
"""Endpoints per table; the JSON has them all."""
_UNKNOWN = "-"
"""Where a figure is not known."""


def report(decision: Decision, width: int) -> Iterator[str]:
    """What matched, who could be chosen and why one was, what it led to; at most `width` characters a line,
    but where the reason or a note is longer."""
    yield from map(plain, _head(decision))
    if decision.candidates:
        yield from _candidates(decision, width)
        yield from _scores(decision, width)
    if decision.screened:
        yield from _screened(decision, width)
    if decision.edits is not None and decision.status == 200:
        yield from (shortened(plain(line), width) for line in _edits(decision.edits))
    if decision.outcome is not None:
        yield from map(plain, _outcome(decision.outcome))


def _head(decision: Decision) -> Iterator[str]:
    if decision.request_id:
        yield f"request   {decision.request_id}"
    yield f"path      {decision.path}"
    yield f"decided   {_by_whom(decision)}"
    if decision.server is not None:
        kind = "an adapter of " if decision.adapter else ""
        yield f"matched   {kind}ModelRoute {decision.route}, rule {decision.rule}"
        endpoints = "endpoint" if decision.considered == 1 else "endpoints"
        yield f"pool      ModelServer {decision.server}, {decision.considered} ready {endpoints}"
    if decision.status != 200:
        yield f"answered  {decision.status} {decision.reason}"
    if decision.candidates:
        yield f"chosen    {_name(decision.candidates[0])} at {decision.candidates[0].address}"
    yield f"why       {decision.why}"
    if decision.status != 200 and decision.body is not None:
        yield f"client    {json.dumps(decision.body, ensure_ascii=False)}"
    if decision.prompt is not None:
        yield f"prompt    {_prompt(decision)}"
    if decision.margin is not None:
        yield f"margin    {decision.margin:.3f} to the next candidate"
    if decision.reservation is not None:
        yield f"reserved  {decision.reservation}"
    yield from (f"note      {note}" for note in decision.notes)


def _by_whom(decision: Decision) -> str:
    by = f"by {decision.worker}, configuration generation {decision.generation}"
    if decision.decided_at is None:
        return f"now, as a preview, {by}"
    at = datetime.fromtimestamp(decision.decided_at, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03} UTC {by}"


def _prompt(decision: Decision) -> str:
    assert decision.prompt is not None
    adapter = f", adapter {decision.prompt.adapter}" if decision.prompt.adapter else ""
    index = f"; cached tokens by the {decision.cached_by} index" if decision.cached_by else ""
    return f"{decision.prompt.tokens} tokens{adapter}{index}"


def _candidates(decision: Decision, width: int) -> Iterator[str]:
    header = ["candidate", "total", "in flight", "pending", "cached", "running", "waiting", "kv", "age"]
    shown = decision.candidates[:_SHOWN]
    yield ""
    yield from table(header, [_row(candidate) for candidate in shown], width)
    yield from _left_out(len(decision.candidates) - len(shown) + decision.candidates_left_out)
    for candidate in shown:
        if candidate.engine is not None and candidate.engine.failing:
            yield plain(f"{_name(candidate)} cannot be observed: {candidate.engine.failing}")


def _row(candidate: Candidate) -> list[str]:
    return [
        _name(candidate),
        f"{candidate.total:.3f}",
        str(candidate.in_flight),
        str(candidate.pending_tokens),
        _count(candidate.cached_tokens),
        *_engine(candidate),
    ]


def _engine(candidate: Candidate) -> list[str]:
    engine = candidate.engine
    if engine is None:
        return [_UNKNOWN] * 4
    kv_usage = _UNKNOWN if engine.kv_usage is None else f"{engine.kv_usage:.0%}"
    return [_count(engine.running), _count(engine.waiting), kv_usage, _seconds(engine.age_s)]


def _scores(decision: Decision, width: int) -> Iterator[str]:
    rows = [
        [_name(candidate), f"{score.score:.3f} x {scorer.weight:.2f}", scorer.name, score.raw]
        for candidate in decision.candidates[:_SHOWN]
        for scorer, score in zip(decision.scorers, candidate.scores, strict=False)
    ]
    if rows:
        yield ""
        yield from table(["candidate", "score x weight", "scorer", "figures"], rows, width, words=4)


def _screened(decision: Decision, width: int) -> Iterator[str]:
    yield ""
    shown = decision.screened[:_SHOWN]
    yield from table(["screened out", "reason"], [[_name(s), s.reason] for s in shown], width, words=2)
    yield from _left_out(len(decision.screened) - len(shown) + decision.screened_left_out)


def _left_out(count: int) -> Iterator[str]:
    if count:
        yield f"... and {count} more"


def _edits(edits: dict[str, object]) -> Iterator[str]:
    yield ""
    if not edits:
        yield "the body goes to the engine as it is"
    for name, value in edits.items():
        yield f"the body's {name} becomes {json.dumps(value, ensure_ascii=False)}"


def _outcome(outcome: Outcome) -> Iterator[str]:
    yield ""
    served = f" by {outcome.served_by}" if outcome.served_by else ""
    moved = ", another endpoint than the chosen one" if outcome.moved else ""
    yield f"ended     {outcome.end}, status {outcome.status}{served}{moved}"
    yield f"took      first byte {_seconds(outcome.first_byte_s)}, in all {_seconds(outcome.duration_s)}"
    counts = f"prompt {_count(outcome.prompt_tokens)}, answer {_count(outcome.completion_tokens)}"
    cached = f"cached {_count(outcome.cached_tokens)}, predicted {_count(outcome.predicted_cached_tokens)}"
    yield f"tokens    {counts}, {cached}"


def _name(endpoint: Candidate | Screened) -> str:
    return endpoint.pod if endpoint.rank is None else f"{endpoint.pod}#{endpoint.rank}"


def _count(value: int | None) -> str:
    return _UNKNOWN if value is None else str(value)


def _seconds(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.3f} s"
