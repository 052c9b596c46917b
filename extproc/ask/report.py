"""A decision for people, line by line; pure."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from extproc.ask.decision import Candidate, Choice, Decision, HandOff, Outcome, Screened
from extproc.ask.table import plain, shortened, table

_SHOWN = 12
"""Endpoints per table; the JSON has them all."""
_UNKNOWN = "-"
"""Where a figure is not known."""
_ENDINGS: Mapping[str, str] = MappingProxyType(
    {
        "transferred": "a prefill endpoint computed the prompt",
        "alone": "no prefill endpoint computed the prompt, so the decode endpoint had to",
        "failed": "no prefill endpoint computed the prompt, and the client got an error",
        "left": "nobody waited for the prefill endpoint any more",
        "sidecar": "a proxy on the decode pod asks the prefill endpoint",
    }
)
"""How a hand-off ended, in words."""


def report(decision: Decision, width: int) -> Iterator[str]:
    """What matched, who could be chosen and why one was, what it led to; at most `width` characters a line,
    but where the reason or a note is longer."""
    yield from map(plain, _head(decision))
    yield from map(plain, _answer(decision))
    handoff = decision.handoff
    if handoff is None:
        yield from _choice(decision, width)
    else:
        yield from _choice(decision, width, "decode ")
        if handoff.prefill is not None:
            yield from _choice(handoff.prefill, width, "prefill ")
    if decision.edits is not None and decision.status == 200:
        yield from (shortened(plain(line), width) for line in _edits(decision.edits))
    if handoff is not None and (handoff.tries or handoff.ending):
        yield from _hop(handoff, width)
    if decision.outcome is not None:
        yield from map(plain, _outcome(decision.outcome))


def _head(decision: Decision) -> Iterator[str]:
    """Which request, when, and what its route made of it."""
    if decision.request_id:
        yield f"request   {decision.request_id}"
    if decision.client_request_id:
        yield f"named     {decision.client_request_id} by the client"
    yield f"path      {decision.path}"
    yield f"decided   {_by_whom(decision)}"
    if decision.server is not None:
        kind = "an adapter of " if decision.adapter else ""
        yield f"matched   {kind}ModelRoute {decision.route}, rule {decision.rule}"
        yield f"pool      ModelServer {decision.server}, {_ready(decision)}"


def _answer(decision: Decision) -> Iterator[str]:
    """Who was chosen and why, or what the client got instead."""
    if decision.status != 200:
        yield f"answered  {decision.status} {decision.reason}"
    if decision.handoff is not None:
        yield from _pair(decision, decision.handoff)
    else:
        if decision.candidates:
            yield f"chosen    {_chosen(decision)}"
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


def _ready(decision: Decision) -> str:
    role = "" if decision.handoff is None else "decode "
    return f"{decision.considered} ready {role}endpoint{'' if decision.considered == 1 else 's'}"


def _pair(decision: Decision, handoff: HandOff) -> Iterator[str]:
    prefill = handoff.prefill
    yield f"prefill   {'none' if prefill is None else f'{_chosen(prefill)}: {prefill.why}'}"
    yield f"decode    {_chosen(decision)}: {decision.why}"
    yield f"why       {handoff.why}"


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


def _choice(choice: Choice, width: int, role: str = "") -> Iterator[str]:
    if choice.candidates:
        yield from _candidates(choice, width, f"{role}candidate")
        yield from _scores(choice, width, f"{role}candidate")
    if choice.screened:
        yield from _screened(choice, width, f"{role}screened out")


def _candidates(choice: Choice, width: int, title: str) -> Iterator[str]:
    header = [title, "total", "in flight", "pending", "cached", "running", "waiting", "kv", "age"]
    shown = choice.candidates[:_SHOWN]
    yield ""
    yield from table(header, [_row(candidate) for candidate in shown], width)
    yield from _left_out(len(choice.candidates) - len(shown) + choice.candidates_left_out)
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


def _scores(choice: Choice, width: int, title: str) -> Iterator[str]:
    rows = [
        [_name(candidate), f"{score.score:.3f} x {scorer.weight:.2f}", scorer.name, score.raw]
        for candidate in choice.candidates[:_SHOWN]
        for scorer, score in zip(choice.scorers, candidate.scores, strict=False)
    ]
    if rows:
        yield ""
        yield from table([title, "score x weight", "scorer", "figures"], rows, width, words=4)


def _screened(choice: Choice, width: int, title: str) -> Iterator[str]:
    yield ""
    shown = choice.screened[:_SHOWN]
    yield from table([title, "reason"], [[_name(s), s.reason] for s in shown], width, words=2)
    yield from _left_out(len(choice.screened) - len(shown) + choice.screened_left_out)


def _left_out(count: int) -> Iterator[str]:
    if count:
        yield f"... and {count} more"


def _edits(edits: dict[str, object]) -> Iterator[str]:
    yield ""
    if not edits:
        yield "the body goes to the engine as it is"
    for name, value in edits.items():
        yield f"the body's {name} becomes {json.dumps(value, ensure_ascii=False)}"


def _hop(handoff: HandOff, width: int) -> Iterator[str]:
    yield ""
    if handoff.tries:
        rows = [[each.endpoint, each.result, _seconds(each.seconds)] for each in handoff.tries]
        yield from table(["prefill asked", "result", "after"], rows, width, words=2)
    if handoff.ending:
        yield plain(f"handed    {handoff.ending}: {_ENDINGS.get(handoff.ending, _UNKNOWN)}")


def _outcome(outcome: Outcome) -> Iterator[str]:
    yield ""
    served = f" by {outcome.served_by}" if outcome.served_by else ""
    moved = ", another endpoint than the chosen one" if outcome.moved else ""
    yield f"ended     {outcome.end}, status {outcome.status}{served}{moved}"
    yield f"took      first byte {_seconds(outcome.first_byte_s)}, in all {_seconds(outcome.duration_s)}"
    counts = f"prompt {_count(outcome.prompt_tokens)}, answer {_count(outcome.completion_tokens)}"
    cached = f"cached {_count(outcome.cached_tokens)}, predicted {_count(outcome.predicted_cached_tokens)}"
    yield f"tokens    {counts}, {cached}"


def _chosen(choice: Choice) -> str:
    return ", ".join(f"{_name(first)} at {first.address}" for first in choice.candidates[:1])


def _name(endpoint: Candidate | Screened) -> str:
    return endpoint.pod if endpoint.rank is None else f"{endpoint.pod}#{endpoint.rank}"


def _count(value: int | None) -> str:
    return _UNKNOWN if value is None else str(value)


def _seconds(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.3f} s"
