"""``/v1/responses``: OpenAI's newer dialect, text only and without stored state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from benchmarks.engine.api import sse
from benchmarks.engine.api.ask import Ask, Choice, Envelope
from benchmarks.engine.api.prompts import Message, chat
from benchmarks.engine.batch import Prefilled
from benchmarks.engine.runtime import Work
from benchmarks.engine.transfer.fields import TransferFields

Input: TypeAlias = str | list[Message]


class ResponsesRequest(TransferFields):
    """The fields that have an effect; others are accepted and ignored, as a model might."""

    input: Input
    model: str | None = None
    instructions: str | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    max_output_tokens: int | None = None
    temperature: float | None = None
    cache_salt: str | None = None
    stream: bool | None = False


@dataclass(frozen=True, slots=True)
class Responses:
    """One responses request."""

    request: ResponsesRequest

    @property
    def ask(self) -> Ask:
        request = self.request
        system = [Message("system", request.instructions)] if request.instructions else []
        turns = [Message("user", request.input)] if isinstance(request.input, str) else request.input
        return Ask(
            prompts=[chat([*system, *turns], request.tools)],
            model=request.model,
            max_tokens=request.max_output_tokens,
            temperature=1.0 if request.temperature is None else request.temperature,
            salt=request.cache_salt,
            stream=bool(request.stream),
            transfer=request,
            engine_name="resp_{}",
        )

    def whole(self, envelope: Envelope, choices: Sequence[Choice]) -> dict[str, object]:
        return _finished(envelope, choices[0])

    def transcript(self, envelope: Envelope, works: Sequence[Work]) -> "ResponsesTranscript":
        return ResponsesTranscript(envelope)


class ResponsesTranscript:
    """Events of one streamed response; each has a sequence number."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._number = -1

    def opening(self, first: Prefilled) -> bytes:
        response = _response(self._envelope, "in_progress", [])
        item = _item(self._envelope, "in_progress", [])
        return (
            self._event("response.created", response=response)
            + self._event("response.in_progress", response=response)
            + self._event("response.output_item.added", output_index=0, item=item)
            + self._part_event("response.content_part.added", part=_part(""))
        )

    def token(self, index: int, text: str, last: bool) -> bytes:
        return self._part_event("response.output_text.delta", delta=text, logprobs=[])

    def closing(self, choices: Sequence[Choice]) -> bytes:
        part = _part(choices[0].text)
        item = _item(self._envelope, "completed", [part])
        response = _finished(self._envelope, choices[0])
        end = "response.completed" if response["status"] == "completed" else "response.incomplete"
        return (
            self._part_event("response.output_text.done", text=choices[0].text, logprobs=[])
            + self._part_event("response.content_part.done", part=part)
            + self._event("response.output_item.done", output_index=0, item=item)
            + self._event(end, response=response)
        )

    def _part_event(self, name: str, **fields: object) -> bytes:
        place = {"item_id": f"msg_{self._envelope.id}", "output_index": 0, "content_index": 0}
        return self._event(name, **place, **fields)

    def _event(self, name: str, **fields: object) -> bytes:
        self._number += 1
        return sse.event(name, {"type": name, "sequence_number": self._number, **fields})


def _finished(envelope: Envelope, choice: Choice) -> dict[str, object]:
    cut = choice.work.reason == "length"
    response = _response(
        envelope, "incomplete" if cut else "completed", [_item(envelope, "completed", [_part(choice.text)])]
    )
    response["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
    response["usage"] = {
        "input_tokens": len(choice.work.prompt),
        "input_tokens_details": {"cached_tokens": choice.prefilled.cached},
        "output_tokens": len(choice.work.output),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": len(choice.work.prompt) + len(choice.work.output),
    }
    return response


def _response(envelope: Envelope, status: str, output: list[dict[str, object]]) -> dict[str, object]:
    return {
        "id": f"resp_{envelope.id}",
        "created_at": envelope.created,
        "incomplete_details": None,
        "model": envelope.model,
        "object": "response",
        "output": output,
        "status": status,
        "usage": None,
    }


def _item(envelope: Envelope, status: str, content: list[dict[str, object]]) -> dict[str, object]:
    return {
        "id": f"msg_{envelope.id}",
        "content": content,
        "role": "assistant",
        "status": status,
        "type": "message",
    }


def _part(text: str) -> dict[str, object]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
