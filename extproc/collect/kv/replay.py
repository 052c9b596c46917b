"""What an engine repeats of its latest batches when asked."""

from collections.abc import AsyncGenerator

from extproc.collect.kv.sockets import Sockets
from extproc.collect.kv.subscribe import Message

_KEEP = 20_000
"""Twice what engines keep by default: their end drops what this one does not take in time."""
_END = -1


class Silent(Exception):
    """Nobody answers, or the answer broke off."""


async def replay(
    sockets: Sockets, address: str, start: int, timeout_s: float
) -> AsyncGenerator[Message, None]:
    """The batches from number `start` on that the engine still has, in order.

    Close the generator when leaving early. There may be holes: the engine's end drops what the connection can
    not take. Raises `Silent` when `timeout_s` pass without a message before the end is marked, and
    `sockets.Unreachable`.
    """
    inbox = sockets.ask(address, _KEEP)
    try:
        inbox.send(b"", start.to_bytes(8, "big"))
        while True:
            if (parts := inbox.take()) is None:
                if not await inbox.wait(timeout_s):
                    raise Silent(f"{address} did not repeat its KV events within {timeout_s:g} s")
            elif (message := _message(parts)) is not None:
                if message.seq == _END:
                    return
                yield message
    finally:
        inbox.close()


def _message(parts: list[bytes]) -> Message | None:
    """Since vLLM 0.26 a topic precedes the number."""
    match parts:
        case [b"", _, seq, payload] | [b"", seq, payload] if len(seq) == 8:
            return Message.of(seq, payload)
    return None
