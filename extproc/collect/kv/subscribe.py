"""What an engine publishes, as it does."""

from typing import NamedTuple

from extproc.collect.kv.sockets import Sockets

_KEEP = 10_000
"""Messages that wait for this process; what is dropped beyond is missed by its number, and repeated."""
_AT_ONCE = 64


class Message(NamedTuple):
    """One numbered batch, not decoded."""

    seq: int
    payload: bytes

    @classmethod
    def of(cls, seq: bytes, payload: bytes) -> "Message":
        """With the number as it is sent: signed, 8 bytes big endian."""
        return cls(int.from_bytes(seq, "big", signed=True), payload)


class Subscription:
    """Batches of one publisher; close it."""

    def __init__(self, sockets: Sockets, address: str) -> None:
        """Raises `sockets.Unreachable`."""
        self._inbox = sockets.subscribe(address, _KEEP)

    async def receive(self, timeout_s: float) -> list[Message]:
        """What has arrived, in order, at most 64 batches; waits `timeout_s` for the first, then gives none.

        Messages of another form are skipped.
        """
        messages = self._drained()
        if not messages and await self._inbox.wait(timeout_s):
            messages = self._drained()
        return messages

    def connected_anew(self) -> bool:
        """Whether what was received last may not continue what was before, whatever its numbers say."""
        return self._inbox.connected_anew()

    def close(self) -> None:
        self._inbox.close()

    def _drained(self) -> list[Message]:
        messages: list[Message] = []
        while len(messages) < _AT_ONCE and (parts := self._inbox.take()) is not None:
            match parts:
                case [_, seq, payload] if len(seq) == 8:
                    messages.append(Message.of(seq, payload))
        return messages
