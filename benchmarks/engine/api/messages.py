"""``/v1/messages``: Anthropic's dialect, text only."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from benchmarks.engine.api import sse
from benchmarks.engine.api.ask import Ask, Choice, Envelope
from benchmarks.engine.api.prompts import Content, Message, chat
from benchmarks.engine.batch import Prefilled
from benchmarks.engine.runtime import Work
from benchmarks.engine.transfer.fields import TransferFields

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessagesRequest(TransferFields):
    """The fields that have an effect; others are accepted and ignored, as a model might."""

    model: str
    messages: list[Message]
    max_tokens: int
    system: Content = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    temperature: float | None = None
    stream: bool | None = False


@dataclass(frozen=True, slots=True)
class Messages:
    """One messages request."""

    request: MessagesRequest

    @property
    def ask(self) -> Ask:
        request = self.request
        system = [Message("system", request.system)] if request.system else []
        return Ask(
            prompts=[chat([*system, *request.messages], request.tools)],
            model=request.model,
            max_tokens=request.max_tokens,
            temperature=1.0 if request.temperature is None else request.temperature,
            stream=bool(request.stream),
            transfer=request,
        )

    def whole(self, envelope: Envelope, choices: Sequence[Choice]) -> dict[str, object]:
        choice = choices[0]
        return {
            **_message(envelope, [{"type": "text", "text": choice.text}]),
            "stop_reason": _STOP_REASONS[choice.work.reason],
            "stop_sequence": None,
            "usage": _usage(choice, envelope.cache_details),
        }

    def transcript(self, envelope: Envelope, works: Sequence[Work]) -> "MessagesTranscript":
        return MessagesTranscript(envelope)


class MessagesTranscript:
    """Events of one streamed message."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope

    def opening(self, first: Prefilled) -> bytes:
        cached = first.reused if self._envelope.cache_details else 0
        usage = {"input_tokens": len(first.job.prompt) - cached, "output_tokens": 0}
        message = {**_message(self._envelope, []), "stop_reason": None, "stop_sequence": None, "usage": usage}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        start = sse.event("message_start", {"type": "message_start", "message": message})
        return start + sse.event("content_block_start", block)

    def token(self, index: int, text: str, last: bool) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return sse.event("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta})

    def closing(self, choices: Sequence[Choice]) -> bytes:
        choice = choices[0]
        delta = {"stop_reason": _STOP_REASONS[choice.work.reason], "stop_sequence": None}
        end = {"type": "message_delta", "delta": delta, "usage": _usage(choice, self._envelope.cache_details)}
        return (
            sse.event("content_block_stop", {"type": "content_block_stop", "index": 0})
            + sse.event("message_delta", end)
            + sse.event("message_stop", {"type": "message_stop"})
        )


def _message(envelope: Envelope, content: list[dict[str, str]]) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{envelope.id}",
        "type": "message",
        "role": "assistant",
        "content": content,
        "model": envelope.model,
    }


def _usage(choice: Choice, details: bool) -> dict[str, int]:
    """With ``details``, cached tokens are not part of ``input_tokens``."""
    if not details:
        return {"input_tokens": len(choice.work.prompt), "output_tokens": len(choice.work.output)}
    return {
        "input_tokens": len(choice.work.prompt) - choice.prefilled.reused,
        "output_tokens": len(choice.work.output),
        "cache_creation_input_tokens": choice.prefilled.created,
        "cache_read_input_tokens": choice.prefilled.reused,
    }
