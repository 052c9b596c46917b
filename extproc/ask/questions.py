"""The two questions to workers, and which of their answers counts; pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from extproc.ask.workers import Answer, Question, Said, Silent

EXPLAIN_S = 2.0
ROUTE_S = 10.0
"""Longest waits: a preview may have to count the tokens of a long prompt."""
_REMEDY = "Is kvoy running? `kvoy up` prints the admin addresses of its workers; name them with --admin."


class Unanswered(Exception):
    """No worker gave the answer; the text says what they did instead, and what to do."""


def why(request_id: str) -> Question:
    """Asks for the decision on a request."""
    return Question(f"/explain/{quote(request_id, safe='')}", EXPLAIN_S)


def what_if(path: str, headers: Mapping[str, str], body: bytes) -> Question:
    """Asks what would happen to a request; raises UnicodeDecodeError if the body is not UTF-8."""
    asked = {"path": path, "headers": headers, "body": body.decode()}
    return Question("/route", ROUTE_S, msgspec.json.encode(asked))


def decision_on(request_id: str, answers: Sequence[Answer]) -> Mapping[str, Any]:
    """The newest decision among the answers to `why`; raises Unanswered."""
    found = [answer.body for answer in answers if isinstance(answer, Said) and answer.status == 200]
    if found:
        return max(found, key=_time)
    unknown = [answer for answer in answers if isinstance(answer, Said) and answer.status == 404]
    if not unknown:
        raise Unanswered(_nobody(answers))
    asked = ", ".join(str(answer.address) for answer in unknown)
    silent = _silences(answer for answer in answers if answer not in unknown and not _absent(answer))
    raise Unanswered(
        f"No worker knows the request {request_id} (asked: {asked}). A worker remembers up to 2,000 "
        "decisions, and none from before its start; the id is the x-request-id of the response."
        + (f"\nNo answer: {silent}" if silent else "")
    )


def preview(answers: Sequence[Answer]) -> Mapping[str, Any]:
    """The first worker's answer to `what_if`; raises Unanswered."""
    for answer in answers:
        if isinstance(answer, Said) and answer.status == 200:
            return answer.body
    raise Unanswered(_nobody(answers))


def _time(told: Mapping[str, Any]) -> float:
    at = told.get("decided_at")
    return at if isinstance(at, float) else 0.0


def _absent(answer: Answer) -> bool:
    return isinstance(answer, Silent) and answer.absent


def _nobody(answers: Sequence[Answer]) -> str:
    """Ports where nobody listens matter only if there is nothing else to tell."""
    present = [answer for answer in answers if not _absent(answer)]
    if present:
        return f"No worker answered the question: {_silences(present)}"
    places = f"{answers[0].address}" + (f" to {answers[-1].address}" if len(answers) > 1 else "")
    return f"Nobody listens at {places}. {_REMEDY}"


def _silences(answers: Iterable[Answer]) -> str:
    return "; ".join(f"{answer.address}: {_said(answer)}" for answer in answers)


def _said(answer: Answer) -> str:
    if isinstance(answer, Silent):
        return answer.why
    return f"status {answer.status}: {answer.body.get('error', 'no reason given')}"
