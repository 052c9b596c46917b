"""An engine that answers at once: reads the whole request, returns one fixed chat completion."""

import asyncio
import re
import sys
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BODY = (
    b'{"id":"chatcmpl-0","object":"chat.completion","created":0,"model":"bench","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"total_tokens":9,'
    b'"completion_tokens":1}}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY
)


class Engine(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._left = 0
        """Body bytes of the current request still to come; 0 between requests."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._head, 0, end)
            data = self._head[end + 4 :]
            self._left = int(length[1]) if length else 0
            self._head = b""
        self._left -= len(data)
        if self._left <= 0:
            self._left = 0
            assert self._transport is not None
            self._transport.write(ANSWER)


async def serve(host: str, port: int) -> None:
    """Listen until cancelled; prints the port once listening."""
    server = await asyncio.get_running_loop().create_server(Engine, host, port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
