"""``/v1/completions``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engine.api import sse, usage
from benchmarks.engine.api.ask import Ask, Choice, Envelope
from benchmarks.engine.api.prompts import Prompt, prompts
from benchmarks.engine.api.usage import StreamOptions, options_of
from benchmarks.engine.batch import Prefilled
from benchmarks.engine.runtime import Work
from benchmarks.engine.transfer.fields import TransferFields

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for this endpoint, and vLLM's."""


class CompletionRequest(TransferFields):
    """The fields that have an effect; others are accepted and ignored, as a model might."""

    prompt: Prompt
    model: str | None = None
    n: int = 1
    max_tokens: int | None = DEFAULT_MAX_TOKENS
    min_tokens: int = 0
    ignore_eos: bool = False
    temperature: float | None = None
    cache_salt: str | None = None
    return_token_ids: bool | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion request, of one prompt or many."""

    request: CompletionRequest
    options: StreamOptions

    @classmethod
    def of(cls, request: CompletionRequest) -> "Completion":
        """ApiError 400 if the request contradicts itself."""
        return cls(request, options_of(request.stream_options, request.stream))

    @property
    def ask(self) -> Ask:
        request = self.request
        return Ask(
            prompts=prompts(request.prompt, "prompt"),
            model=request.model,
            n=request.n,
            max_tokens=request.max_tokens,
            min_tokens=request.min_tokens,
            ignore_eos=request.ignore_eos,
            temperature=1.0 if request.temperature is None else request.temperature,
            salt=request.cache_salt,
            stream=bool(request.stream),
            transfer=request,
            engine_name="cmpl-{}-0",
        )

    def whole(self, envelope: Envelope, choices: Sequence[Choice]) -> dict[str, object]:
        return {
            "id": f"cmpl-{envelope.id}",
            "object": "text_completion",
            "created": envelope.created,
            "model": envelope.model,
            "choices": [self._choice(index, choice) for index, choice in enumerate(choices)],
            "service_tier": None,
            "system_fingerprint": envelope.fingerprint,
            "usage": usage.total(
                choices, self.request.n, with_cached=envelope.cache_details, with_created=False
            ),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def transcript(self, envelope: Envelope, works: Sequence[Work]) -> "CompletionTranscript":
        return CompletionTranscript(envelope, works, self.request.n, self.options)

    def _choice(self, index: int, choice: Choice) -> dict[str, object]:
        with_ids = self.request.return_token_ids
        return {
            "index": index,
            "text": choice.text,
            "logprobs": None,
            "finish_reason": choice.work.reason,
            "stop_reason": None,
            "token_ids": choice.work.output.tolist() if with_ids else None,
            "prompt_logprobs": None,
            "prompt_token_ids": choice.work.prompt.tolist() if with_ids else None,
            "routed_experts": None,
        }


class CompletionTranscript:
    """Chunks of one streamed completion."""

    def __init__(self, envelope: Envelope, works: Sequence[Work], n: int, options: StreamOptions) -> None:
        self._envelope = envelope
        self._works = works
        self._n = n
        self._options = options
        self._sent = [0] * len(works)

    def opening(self, first: Prefilled) -> bytes:
        return b""

    def token(self, index: int, text: str, last: bool) -> bytes:
        self._sent[index] += 1
        choice = {
            "index": index,
            "text": text,
            "logprobs": None,
            "finish_reason": self._works[index].reason if last else None,
            "stop_reason": None,
            "prompt_token_ids": None,
            "token_ids": None,
        }
        return sse.data(self._chunk([choice], index))

    def closing(self, choices: Sequence[Choice]) -> bytes:
        if not self._options.include_usage:
            return sse.DONE
        final = self._chunk([], 0)
        details = self._envelope.cache_details
        final["usage"] = usage.final(choices, self._n, with_cached=details, with_created=False)
        final["system_fingerprint"] = self._envelope.fingerprint
        return sse.data(final) + sse.DONE

    def _chunk(self, choices: list[dict[str, object]], index: int) -> dict[str, Any]:
        chunk: dict[str, Any] = {
            "id": f"cmpl-{self._envelope.id}",
            "object": "text_completion",
            "created": self._envelope.created,
            "model": self._envelope.model,
            "choices": choices,
        }
        if self._options.on_every_chunk:
            chunk["usage"] = usage.so_far(self._works[index], self._sent[index])
        return chunk
