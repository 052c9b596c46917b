"""The part that one request plays in a transfer, and the errors."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.engine import cache
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.batch import Prefilled
from benchmarks.engine.runtime import Work
from benchmarks.engine.tokens import Tokens
from benchmarks.engine.transfer.fields import TransferFields


class TransferError(Exception):
    """The KV cache of a prompt did not come, or did not leave."""


class EngineDeathError(Exception):
    """The body is one that kills the engine."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request asks for."""

    request_id: str
    """What the engine calls it: its ``X-Request-Id`` with the endpoint's prefix."""
    fields: TransferFields
    works: Sequence[Work]
    """At least one."""
    stream: bool

    @property
    def params(self) -> Mapping[str, Any]:
        """Empty where the body has none."""
        return self.fields.kv_transfer_params or {}


async def _at_once() -> None:
    """Nothing to wait for."""


@dataclass(frozen=True, slots=True)
class Part:
    """How the engine carries a request out."""

    works: Sequence[Work]
    is_prefill: bool = False
    params: Callable[[Prefilled], Mapping[str, object] | None] = lambda _: None
    """``kv_transfer_params`` of the answer, once its prompt is computed."""
    delivered: Callable[[], Awaitable[None]] = _at_once
    """Waits until the answer may end; TransferError if it ends badly."""


class Connector(Protocol):
    """One way for KV caches to travel."""

    def part(self, asked: Asked) -> Part:
        """What the request is to do.

        Raises ApiError 400 for a body that is no good, EngineDeathError for one that kills.
        """


def check_prompt_only(asked: Asked) -> None:
    """ApiError 400 unless the request asks for one token of one plain answer: nobody would read more."""
    if asked.stream:
        raise ApiError(400, "A prefill must not be streamed: stream must be false.", "stream")
    if len(asked.works) != 1:
        message = f"A prefill must be of one prompt with n = 1; this asks for {len(asked.works)} answers."
        raise ApiError(400, message, "n")
    if asked.works[0].max_tokens != 1:
        message = f"A prefill must ask for 1 token, got {asked.works[0].max_tokens}."
        raise ApiError(400, message, "max_tokens")


def check_one_prompt(asked: Asked) -> None:
    """ApiError 400 if there are several prompts: a transfer is of one."""
    if any(work.prompt != asked.works[0].prompt for work in asked.works):
        raise ApiError(400, "A transfer is of one prompt, and this request has several.", "prompt")


def root(work: Work) -> cache.BlockHash:
    """What the first block of its prompt follows."""
    return cache.root(None if work.adapter is None else work.adapter.name, work.salt)


def fingerprint(first: cache.BlockHash, prompt: Tokens) -> str:
    """Tells prompts apart, and what else their KV caches depend on (``first``, their root)."""
    return hashlib.sha256(first + prompt.tobytes()).hexdigest()
