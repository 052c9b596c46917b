"""Asks an engine for the token ids of a prompt.

``/tokenize`` knows messages, tools and template arguments; what only a chat request knows goes to vLLM's
``/v1/chat/completions/render`` (its ``--enable-scale-out``).
"""

import asyncio
import logging
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import msgspec

from extproc.tokens.question import NotHere, Question, Untellable

log = logging.getLogger("kvoy.tokens")

ASKED = 3
"""Engines asked about one prompt, at most,"""
WITHIN_S = 0.5
"""and how long each may take."""
FAILURES = 3
"""After so many in a row an engine is left alone,"""
PAUSE_S = 5.0
"""for so long."""

_TOKENIZE = {
    "chat": (
        "messages",
        "tools",
        "chat_template",
        "chat_template_kwargs",
        "add_generation_prompt",
        "continue_final_message",
        "add_special_tokens",
    ),
    "completion": ("prompt", "add_special_tokens"),
}
"""What ``/tokenize`` understands."""
_REFUSALS = (400, 413, 422)
"""Said about the prompt, not about the engine."""


class _Answer(msgspec.Struct, frozen=True):
    """``/tokenize`` calls them `tokens`, ``/render`` `token_ids`."""

    tokens: list[int] | None = None
    token_ids: list[int] | None = None


@dataclass(slots=True)
class _Trouble:
    """An engine that failed when last asked."""

    failures: int = 0
    until: float = float("-inf")
    """When to ask again."""


class Remote:
    """Token ids by engines, of which those that keep failing are left alone for a while."""

    def __init__(self, http: aiohttp.ClientSession, clock: Callable[[], float]) -> None:
        self._http = http
        self._clock = clock
        self._troubles: dict[str, _Trouble] = {}

    async def ids(self, question: Question) -> bytes:
        """Ids from the first engine that tells them. `NotHere` if none does, `Untellable` if one refuses."""
        path, body = _request(question)
        for engine in self._willing(question)[:ASKED]:
            try:
                async with asyncio.timeout(WITHIN_S):
                    found = await self._ask(engine + path, body)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, OverflowError) as error:
                self._failed(engine, str(error) or type(error).__name__)
            else:
                self._worked(engine)
                return found
        raise NotHere("no engine told its tokens")

    def _willing(self, question: Question) -> list[str]:
        now = self._clock()
        return [
            engine
            for engine in question.engines
            if engine not in self._troubles or self._troubles[engine].until <= now
        ]

    async def _ask(self, url: str, body: bytes) -> bytes:
        headers = {"content-type": "application/json"}
        async with self._http.post(url, data=body, headers=headers) as answer:
            if answer.status in _REFUSALS:
                raise Untellable(f"the engine refuses the prompt ({answer.status})")
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            told = msgspec.json.decode(await answer.read(), type=_Answer)
        ids = told.tokens if told.token_ids is None else told.token_ids
        if ids is None:
            raise ValueError("no token ids in the answer")
        return array("I", ids).tobytes()

    def _failed(self, engine: str, why: str) -> None:
        trouble = self._troubles.setdefault(engine, _Trouble())
        trouble.failures += 1
        if trouble.failures >= FAILURES:
            trouble.until = self._clock() + PAUSE_S
        if trouble.failures == FAILURES:
            log.warning("%s does not tell token ids (%s); asking others", engine, why)
        if len(self._troubles) > 1000:  # engines that are gone
            del self._troubles[next(iter(self._troubles))]

    def _worked(self, engine: str) -> None:
        trouble = self._troubles.pop(engine, None)
        if trouble is not None and trouble.failures >= FAILURES:
            log.info("%s tells token ids again", engine)


def _request(question: Question) -> tuple[str, bytes]:
    """Path and body."""
    given = question.parts.given()
    known = _TOKENIZE[question.kind]
    path = "/tokenize"
    if question.kind == "chat" and not given.keys() <= set(known):
        path = "/v1/chat/completions/render"
    else:
        given = {name: given[name] for name in known if name in given}
    if question.kind == "completion":
        given["prompt"] = _only(given["prompt"])
    return path, msgspec.json.encode({"model": question.model, **given})


def _only(prompt: msgspec.Raw) -> msgspec.Raw:
    """The prompt of a list of one: ``/tokenize`` takes no lists."""
    if not bytes(prompt).startswith(b"["):
        return prompt
    return msgspec.json.decode(prompt, type=list[msgspec.Raw])[0]
