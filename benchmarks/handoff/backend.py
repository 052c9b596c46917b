"""Engines that take a told time for any prompt, however many there are, and transfer KV caches in none.

So what a request takes beyond that time is the way to them. A body says in `prefill_ms` how long its prompt
takes. ``python -m benchmarks.handoff.backend`` runs one engine that does both, and a pair for each connector;
it prints their ports as JSON.
"""

import asyncio
import re
from collections import defaultdict
from typing import Literal, cast

import msgspec
import uvloop

from extproc.state.records import ConnectorName, Role

CONNECTORS: tuple[ConnectorName, ...] = ("nixl", "nixl-push", "mooncake", "http", "sglang")

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PREFILL_MS = re.compile(rb'"prefill_ms": *(\d+)')
_REMOTE = re.compile(rb'"do_remote_prefill": *true')
_METRICS = (
    b'vllm:num_requests_running{engine="0",model_name="bench"} 0\n'
    b'vllm:num_requests_waiting{engine="0",model_name="bench"} 0\n'
)
_ANSWER = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 0,
    "model": "bench",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 8, "total_tokens": 9, "completion_tokens": 1},
}
_PARAMS = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_block_ids": [list(range(1, 65))],
    "remote_engine_id": "p",
    "remote_request_id": "chatcmpl-0-00000000",
    "remote_host": "127.0.0.1",
    "remote_port": 5600,
    "tp_size": 1,
}
_MEETINGS: dict[ConnectorName, re.Pattern[bytes]] = {
    "nixl-push": re.compile(rb"\r\nx-request-id: *([^\r]+)", re.IGNORECASE),
    "mooncake": re.compile(rb'"transfer_id": *"([^"]+)"'),
    "sglang": re.compile(rb'"bootstrap_room": *(\d+)'),
}
"""What both legs have in common, by which engines find each other."""


class Ports(msgspec.Struct, frozen=True):
    """Where the engines listen."""

    both: int
    pairs: dict[str, tuple[int, int]]
    """Connector to the ports of its prefill and its decode engine."""


class Meetings:
    """Where the legs of two engines meet: the decode engine waits until the prompt is computed."""

    def __init__(self) -> None:
        self._computed: defaultdict[bytes, asyncio.Future[None]] = defaultdict(
            asyncio.get_running_loop().create_future
        )

    def computed(self, key: bytes) -> None:
        self._computed[key].set_result(None)

    def wait(self, key: bytes) -> asyncio.Future[None]:
        """Done when that prompt is computed; to be asked for once."""
        waiting = self._computed[key]
        waiting.add_done_callback(lambda _: self._computed.pop(key))
        return waiting


class Engine(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, role: Role | Literal["both"], connector: ConnectorName, meetings: Meetings) -> None:
        self._role = role
        self._connector = connector
        self._meetings = meetings
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._received, 0, end)
        if len(self._received) >= end + 4 + (int(length[1]) if length else 0):
            head, body = bytes(self._received[:end]), bytes(self._received[end + 4 :])
            self._received.clear()
            self._serve(head, body)

    def _serve(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /metrics "):
            self._write(200, _METRICS, "text/plain")
        elif head.startswith(b"GET /query "):
            self._write(200, b'{"0":{"engine_id":"p","worker_addr":{"0":{"0":"tcp://127.0.0.1:1"}}}}')
        elif head.startswith(b"GET "):
            self._write(404, b"{}")
        elif self._role == "decode":
            self._decode(head, body)
        else:
            self._prefill(head, body)

    def _prefill(self, head: bytes, body: bytes) -> None:
        """Compute the prompt; without an answer to wait for, the answer is there with it."""
        told = _PREFILL_MS.search(body)
        asyncio.get_running_loop().call_later(int(told[1]) / 1e3 if told else 0.0, self._computed, head, body)

    def _computed(self, head: bytes, body: bytes) -> None:
        key = self._meeting(head, body)
        if key is not None:
            self._meetings.computed(key)
        params = {"kv_transfer_params": _PARAMS} if self._connector == "nixl" else {}
        self._write(200, msgspec.json.encode(_ANSWER | params))

    def _decode(self, head: bytes, body: bytes) -> None:
        """Answer when the prompt is there; an error if nobody computes it."""
        key = self._meeting(head, body)
        if key is not None:
            self._meetings.wait(key).add_done_callback(lambda _: self._answer())
        elif self._connector == "http" or _REMOTE.search(body):
            self._answer()
        else:
            self._write(500, b'{"error":{"message":"who computes this prompt?"}}')

    def _meeting(self, head: bytes, body: bytes) -> bytes | None:
        pattern = None if self._role == "both" else _MEETINGS.get(self._connector)
        found = pattern and (pattern.search(body) or pattern.search(head))
        return found[1] if found else None

    def _answer(self) -> None:
        self._write(200, msgspec.json.encode(_ANSWER))

    def _write(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        assert self._transport is not None
        head = f"HTTP/1.1 {status} -\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def serve() -> None:
    """Listen until cancelled; prints the ports once listening."""
    meetings = Meetings()
    pairs: dict[str, tuple[int, int]] = {}
    for connector in CONNECTORS:
        prefill, decode = [await _port(role, connector, meetings) for role in ("prefill", "decode")]
        pairs[connector] = (prefill, decode)
    ports = Ports(await _port("both", "http", meetings), pairs)
    print(msgspec.json.encode(ports).decode(), flush=True)
    await asyncio.Event().wait()


async def _port(role: Role | Literal["both"], connector: ConnectorName, meetings: Meetings) -> int:
    server = await asyncio.get_running_loop().create_server(
        lambda: Engine(role, connector, meetings), "127.0.0.1", 0
    )
    port: int = server.sockets[0].getsockname()[1]
    return port


if __name__ == "__main__":
    uvloop.run(serve())
