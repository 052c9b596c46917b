"""``/v1/chat/completions``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from benchmarks.engine.api import sse, usage
from benchmarks.engine.api.ask import Ask, Choice, Envelope
from benchmarks.engine.api.prompts import Message, chat
from benchmarks.engine.api.usage import StreamOptions, options_of
from benchmarks.engine.batch import Prefilled
from benchmarks.engine.runtime import Work
from benchmarks.engine.transfer.fields import TransferFields


class ChatRequest(TransferFields):
    """The fields that have an effect; others are accepted and ignored, as a model might."""

    messages: list[Message]
    model: str | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    n: int = 1
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    temperature: float | None = None
    cache_salt: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat request."""

    request: ChatRequest
    options: StreamOptions

    @classmethod
    def of(cls, request: ChatRequest) -> "Chat":
        """ApiError 400 if the request contradicts itself."""
        return cls(request, options_of(request.stream_options, request.stream))

    @property
    def ask(self) -> Ask:
        request = self.request
        most = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
        return Ask(
            prompts=[chat(request.messages, request.tools)],
            model=request.model,
            n=request.n,
            max_tokens=most,
            min_tokens=request.min_tokens,
            ignore_eos=request.ignore_eos,
            temperature=1.0 if request.temperature is None else request.temperature,
            salt=request.cache_salt,
            stream=bool(request.stream),
            transfer=request,
        )

    def whole(self, envelope: Envelope, choices: Sequence[Choice]) -> dict[str, object]:
        return {
            "id": f"chatcmpl-{envelope.id}",
            "object": "chat.completion",
            "created": envelope.created,
            "model": envelope.model,
            "choices": [_choice(index, choice) for index, choice in enumerate(choices)],
            "service_tier": None,
            "system_fingerprint": envelope.fingerprint,
            "usage": usage.total(
                choices, self.request.n, with_cached=envelope.cache_details, with_created=True
            ),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def transcript(self, envelope: Envelope, works: Sequence[Work]) -> "ChatTranscript":
        return ChatTranscript(envelope, works, self.options)


def _choice(index: int, choice: Choice) -> dict[str, object]:
    return {
        "index": index,
        "message": {
            "role": "assistant",
            "content": choice.text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        },
        "logprobs": None,
        "finish_reason": choice.work.reason,
        "stop_reason": None,
        "token_ids": None,
        "routed_experts": None,
    }


class ChatTranscript:
    """Chunks of one streamed chat answer."""

    def __init__(self, envelope: Envelope, works: Sequence[Work], options: StreamOptions) -> None:
        self._envelope = envelope
        self._works = works
        self._options = options
        self._sent = [0] * len(works)

    def opening(self, first: Prefilled) -> bytes:
        return b"".join(self._role(index) for index in range(len(self._works)))

    def token(self, index: int, text: str, last: bool) -> bytes:
        self._sent[index] += 1
        choice: dict[str, object] = {"index": index, "delta": {"content": text}, "logprobs": None}
        choice["finish_reason"] = self._works[index].reason if last else None
        if last:
            choice["stop_reason"] = None
        choice["token_ids"] = None
        return sse.data(self._chunk([choice], index))

    def closing(self, choices: Sequence[Choice]) -> bytes:
        if not self._options.include_usage:
            return sse.DONE
        final = self._chunk([], 0)
        details = self._envelope.cache_details
        final["usage"] = usage.final(choices, len(choices), with_cached=details, with_created=True)
        final["system_fingerprint"] = self._envelope.fingerprint
        return sse.data(final) + sse.DONE

    def _role(self, index: int) -> bytes:
        delta = {"role": "assistant", "content": ""}
        chunk = self._chunk(
            [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}], index
        )
        return sse.data({**chunk, "prompt_token_ids": None, "prompt_text": None})

    def _chunk(self, choices: list[dict[str, object]], index: int) -> dict[str, Any]:
        chunk: dict[str, Any] = {
            "id": f"chatcmpl-{self._envelope.id}",
            "object": "chat.completion.chunk",
            "created": self._envelope.created,
            "model": self._envelope.model,
            "choices": choices,
        }
        if self._options.on_every_chunk:
            chunk["usage"] = usage.so_far(self._works[index], self._sent[index])
        return chunk
