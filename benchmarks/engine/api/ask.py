"""A generation request reduced to what the engine needs, and what it gets back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.engine.api import errors
from benchmarks.engine.batch import Prefilled
from benchmarks.engine.models import Adapter, Models
from benchmarks.engine.reply import reply
from benchmarks.engine.runtime import Work
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.tokens import Tokens, decode
from benchmarks.engine.transfer.fields import TransferFields

MOST_CHOICES = 128


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for, whatever its dialect."""

    prompts: Sequence[Tokens]
    model: str | None
    """None asks for the base model."""
    n: int = 1
    max_tokens: int | None = None
    """None lets the answer end by itself."""
    min_tokens: int = 0
    ignore_eos: bool = False
    """The answer has exactly ``max_tokens`` tokens."""
    temperature: float = 1.0
    """Only checked: answers are deterministic."""
    salt: str | None = None
    stream: bool = False
    transfer: TransferFields = field(default_factory=TransferFields)
    engine_name: str = "chatcmpl-{}"
    """What the engine calls the request, with its id in the braces."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer to one prompt."""

    work: Work
    prefilled: Prefilled

    @property
    def text(self) -> str:
        return decode(self.work.output)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every chunk of one answer repeats."""

    id: str
    """Without the dialect's prefix."""
    created: int
    """Unix seconds."""
    model: str
    fingerprint: str
    cache_details: bool
    """Whether usage says how many prompt tokens were cached."""


class Transcript(Protocol):
    """The bytes of a streamed answer."""

    def opening(self, first: Prefilled) -> bytes:
        """Before the first token; its prompt is computed."""

    def token(self, index: int, text: str, last: bool) -> bytes:
        """A token of choice ``index``; ``last`` ends that choice."""

    def closing(self, choices: Sequence[Choice]) -> bytes:
        """After the last token of the last choice."""


class Dialect(Protocol):
    """A generation endpoint: what its request asks for and how its answer is written."""

    @property
    def ask(self) -> Ask:
        """The request."""

    def whole(self, envelope: Envelope, choices: Sequence[Choice]) -> dict[str, object]:
        """The body of a plain answer."""

    def transcript(self, envelope: Envelope, works: Sequence[Work]) -> Transcript:
        """The writer of a streamed answer."""


def plan(ask: Ask, models: Models, settings: EngineSettings) -> list[Work]:
    """The work of a request, prompt by prompt; ApiError if the engine does not take it."""
    adapter = resolve(ask.model, models)
    _check(ask, settings)
    works = [_work(prompt, adapter, ask, settings) for prompt in ask.prompts]
    return [work for work in works for _ in range(ask.n)]


def resolve(model: str | None, models: Models) -> Adapter | None:
    """The adapter that a request's ``model`` stands for; None for the base; ApiError 404 if unknown."""
    if model is not None and not models.has(model):
        raise errors.unknown_model(model, models.base)
    return None if model is None else models.adapter(model)


def check_length(prompt: Tokens, longest: int) -> None:
    """ApiError 400 if a prompt leaves no room for an answer."""
    if len(prompt) > longest - 1:
        raise errors.bad_value(
            "input_tokens",
            len(prompt),
            f"This model's maximum context length is {longest} tokens. However, your prompt contains at "
            f"least {len(prompt)} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt.",
        )


def _check(ask: Ask, settings: EngineSettings) -> None:
    longest = settings.max_model_len
    if not ask.temperature >= 0:
        message = f"temperature must be non-negative, got {ask.temperature}."
        raise errors.bad_value("temperature", ask.temperature, message)
    if not 1 <= ask.n <= MOST_CHOICES:
        raise errors.bad_value("n", ask.n, f"n must be between 1 and {MOST_CHOICES}, got {ask.n}.")
    if ask.max_tokens is None:
        return
    if ask.max_tokens < 1:
        raise errors.bad_value(
            "max_tokens", ask.max_tokens, f"max_tokens must be at least 1, got {ask.max_tokens}."
        )
    if ask.max_tokens > longest:
        raise errors.bad_value(
            "max_tokens",
            ask.max_tokens,
            f"max_tokens={ask.max_tokens} cannot be greater than max_model_len={longest}. "
            "Please request fewer output tokens.",
        )


def _work(prompt: Tokens, adapter: Adapter | None, ask: Ask, settings: EngineSettings) -> Work:
    check_length(prompt, settings.max_model_len)
    room = settings.max_model_len - len(prompt)
    if ask.max_tokens is not None and ask.max_tokens > room:
        raise errors.bad_value(
            "input_tokens",
            len(prompt),
            f"This model's maximum context length is {settings.max_model_len} tokens. However, you requested "
            f"{ask.max_tokens} output tokens and your prompt contains {len(prompt)} input tokens.",
        )
    most = room if ask.max_tokens is None else ask.max_tokens
    wanted = most if ask.ignore_eos else max(settings.reply_tokens, ask.min_tokens)
    length = min(wanted, most)
    reason = "stop" if length == wanted and not ask.ignore_eos else "length"
    output = reply(settings.name, prompt, length)
    return Work(prompt, output, reason, most, adapter, ask.salt)
