"""Server-sent events."""

import msgspec

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


def data(body: object) -> bytes:
    """An event without a name."""
    return b"data: " + _encode(body) + b"\n\n"


def event(name: str, body: object) -> bytes:
    """An event with a name."""
    return b"event: " + name.encode() + b"\n" + data(body)
