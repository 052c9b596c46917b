"""The body as the engine shall see it, edited by bytes.

Re-serialising a 400 KB prompt costs more than the rest of a decision and may change numbers and key order;
so the few values that change are cut out at their exact places and the rest is copied once.
"""

from typing import NamedTuple

import msgspec
import numpy as np

from extproc.request import InferenceRequest


class _StreamOptions(msgspec.Struct):
    include_usage: msgspec.Raw = msgspec.Raw()


_decode_options = msgspec.json.Decoder(_StreamOptions).decode


class Edit(NamedTuple):
    """Bytes ``[start, end)`` of the body become `text`."""

    start: int
    end: int
    text: bytes


def rewrite(request: InferenceRequest, model: str | None, report_usage: bool) -> bytes | None:
    """The edited body, or None where nothing changes.

    `model` replaces the body's model unless None; `report_usage` makes a streamed answer of an API that
    knows it end with its token usage.
    """
    edits = []
    if model is not None and model != request.model:
        start = offset(request.body, request.model_slice)
        edits.append(Edit(start, start + _length(request.model_slice), msgspec.json.encode(model)))
    if report_usage and request.stream and request.api.stream_usage:
        edits.extend(_usage_edit(request))
    return apply(request.body, edits) if edits else None


def apply(body: bytes, edits: list[Edit]) -> bytes:
    """The body after all edits; they must not overlap."""
    parts: list[bytes] = []
    at = 0
    for edit in sorted(edits):
        parts += (body[at : edit.start], edit.text)
        at = edit.end
    parts.append(body[at:])
    return b"".join(parts)


def offset(body: bytes, part: msgspec.Raw) -> int:
    """Where a decoded slice lies in the body it was decoded from.

    The slice shares the body's memory, so the difference of their addresses is exact where a search could
    find an equal text inside the prompt.
    """
    return _address(part) - _address(body)


def _usage_edit(request: InferenceRequest) -> list[Edit]:
    """Sets ``stream_options.include_usage``; options that are no object are left for the engine to refuse."""
    raw = request.stream_options_slice
    text = bytes(raw)
    if not text:
        first = request.body.index(b"{") + 1
        return [Edit(first, first, b'"stream_options":{"include_usage":true},')]
    start = offset(request.body, raw)
    if text == b"null":
        return [Edit(start, start + len(text), b'{"include_usage":true}')]
    if not text.startswith(b"{"):
        return []
    asked = _decode_options(raw).include_usage
    if _length(asked):
        start = offset(request.body, asked)
        return [] if bytes(asked) == b"true" else [Edit(start, start + _length(asked), b"true")]
    comma = b"," if text[1:-1].strip() else b""
    return [Edit(start + 1, start + 1, b'"include_usage":true' + comma)]


def _length(part: msgspec.Raw) -> int:
    return len(memoryview(part))


def _address(buffer: bytes | msgspec.Raw) -> int:
    address: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    return address
