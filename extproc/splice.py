"""The body as the engine shall see it, edited by bytes.

Re-serialising a 400 KB prompt costs more than the rest of a decision and may change numbers and key order;
so the few values that change are cut out at their exact places and the rest is copied once.

Bodies are JSON that `msgspec` has accepted; what is not would be cut at wrong places.
"""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from extproc.request import InferenceRequest


class _StreamOptions(msgspec.Struct):
    include_usage: msgspec.Raw = msgspec.Raw()


_decode_options = msgspec.json.Decoder(_StreamOptions).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NAME = re.compile(rb"[ \t\n\r,]*+(" + _TEXT + rb")[ \t\n\r]*+:[ \t\n\r]*+", re.DOTALL)
_SCALAR = re.compile(_TEXT + rb"|[^][{}\", \t\n\r]++", re.DOTALL)
_TOKEN = re.compile(_TEXT + rb"|[][{}]", re.DOTALL)
_LONG = 256
"""Bytes of a value whose end is not searched for."""
_LONGEST_REST = 65536
"""Bytes of an object that may be neither of these values: they are read one by one."""
_EMPTY = re.compile(rb"[ \t\n\r]*+}")


class Intricate(ValueError):
    """A body that is meant to take long to read."""


class Edit(NamedTuple):
    """Bytes ``[start, end)`` of the body become `text`."""

    start: int
    end: int
    text: bytes


class Member(NamedTuple):
    """One member of an object, by its places in the body."""

    name: str
    start: int
    """Of its name, with the quote."""
    value: int
    """Start of its value."""
    end: int
    """After its value."""


def rewrite(request: InferenceRequest, model: str | None, report_usage: bool) -> bytes | None:
    """The edited body, or None where nothing changes.

    `model` replaces the body's model unless None; `report_usage` makes a streamed answer of an API that
    knows it end with its token usage.
    """
    edits = []
    if model is not None and model != request.model:
        edits.append(replacement(request.body, request.model_slice, msgspec.json.encode(model)))
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


def replacement(body: bytes, part: msgspec.Raw, text: bytes) -> Edit:
    """`text` in place of a decoded slice of the body."""
    start = offset(body, part)
    return Edit(start, start + _length(part), text)


def insertion(body: bytes, fields: Mapping[str, bytes], at: int | None = None) -> Edit:
    """New members (name to JSON), first in the object that opens at `at`; by default in the body itself."""
    first = (body.index(b"{") if at is None else at) + 1
    text = b",".join(msgspec.json.encode(name) + b":" + json for name, json in fields.items())
    if text and not _EMPTY.match(body, first):
        text += b","
    return Edit(first, first, text)


def members(body: bytes, start: int, end: int) -> Iterator[Member]:
    """The members of the object at ``body[start:end]``, in order; all of them where a name is there twice.

    Raises `Intricate` where that would take long.
    """
    ends = _ends(body, start, end)
    at = body.index(b"{", start) + 1
    while found := _NAME.match(body, at):
        value = found.end()
        at = ends.get(value) or _end(body, value)
        yield Member(_decode_string(found[1]), found.start(1), value, at)


def _ends(body: bytes, start: int, end: int) -> dict[int, int]:
    """Where each long value of an object starts and ends. The decoder keeps only the last of each name."""
    text = body[start:end]
    values = list(_decode_members(text).values())
    if len(text) - sum(map(_length, values)) > _LONGEST_REST:
        raise Intricate("the body has too many members, or long ones of the same name")
    long = [value for value in values if _length(value) > _LONG]
    starts = [start + offset(text, value) for value in long]
    return {at: at + _length(value) for at, value in zip(starts, long, strict=True)}


def removals(found: Sequence[Member], gone: Container[int]) -> list[Edit]:
    """Takes the members at the positions `gone` out of an object's, and one comma with each."""
    edits = []
    kept = False
    for at, member in enumerate(found):
        if at not in gone:
            kept = True
        elif kept:
            edits.append(Edit(found[at - 1].end, member.end, b""))
        else:
            following = found[at + 1 : at + 2]
            edits.append(Edit(member.start, following[0].start if following else member.end, b""))
    return edits


def offset(body: bytes, part: msgspec.Raw) -> int:
    """Where a decoded slice lies in the body it was decoded from.

    The slice shares the body's memory, so the difference of their addresses is exact where a search could
    find an equal text inside the prompt.
    """
    return _address(part) - _address(body)


def _usage_edit(request: InferenceRequest) -> list[Edit]:
    """Sets ``stream_options.include_usage``; options that are no object are left for the engine to refuse."""
    body = request.body
    raw = request.stream_options_slice
    text = bytes(raw)
    if not text:
        return [insertion(body, {"stream_options": b'{"include_usage":true}'})]
    if text == b"null":
        return [replacement(body, raw, b'{"include_usage":true}')]
    if not text.startswith(b"{"):
        return []
    asked = _decode_options(raw).include_usage
    if _length(asked):
        return [] if bytes(asked) == b"true" else [replacement(body, asked, b"true")]
    return [insertion(body, {"include_usage": b"true"}, offset(body, raw))]


def _end(body: bytes, at: int) -> int:
    """Where the value that starts at `at` ends."""
    if body[at] not in b"[{":
        return _SCALAR.match(body, at).end()  # type: ignore[union-attr]
    depth = 0
    for token in _TOKEN.finditer(body, at):
        if body[token.start()] in b"[{":
            depth += 1
        elif body[token.start()] in b"]}":
            depth -= 1
            if not depth:
                return token.end()
    raise ValueError("the body is no JSON")


def _length(part: msgspec.Raw) -> int:
    return len(memoryview(part))


def _address(buffer: bytes | msgspec.Raw) -> int:
    address: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    return address
