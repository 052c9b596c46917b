"""ZeroMQ enters here: sockets that receive without blocking the loop."""

import asyncio
from contextlib import suppress

import zmq

_LARGEST = 64 << 20
"""Bytes of one message part; whoever sends more is cut off."""
_SOCKETS = 4096
"""Open at once in this process: four per engine that catches up, monitors included."""
_HEARTBEAT_MS = 5_000
_DEAD_MS = 15_000
_RECONNECT_MS = (50, 2_000)


class Unreachable(Exception):
    """An address that can not be connected to."""


class Inbox:
    """A socket: parts out, parts in."""

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self._socket = socket
        self._monitor: zmq.Socket[bytes] = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def send(self, *parts: bytes) -> None:
        """Queue one message until the peer is there."""
        self._socket.send_multipart(parts, zmq.NOBLOCK)

    def take(self) -> list[bytes] | None:
        """The parts of the next message; None if none has arrived."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    async def wait(self, timeout_s: float) -> bool:
        """Whether something may have arrived in time; call it after `take` gave None.

        ZeroMQ's descriptor tells changes and not states, so waiting before `take` came up empty could miss
        one; it stays readable until `take` looks, so it is watched only here.
        """
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()
        descriptor = self._socket.FD
        loop.add_reader(descriptor, _resolve, arrived)
        try:
            async with asyncio.timeout(timeout_s):
                await arrived
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(descriptor)
        return True

    def connected_anew(self) -> bool:
        """Whether a connection was made since the last call, the first one included.

        Asked after a message was taken, it tells of the connection on which that message came.
        """
        anew = False
        with suppress(zmq.Again):
            while self._monitor.recv_multipart(zmq.NOBLOCK):
                anew = True
        return anew

    def close(self) -> None:
        """Drop what is still queued."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)


class Sockets:
    """The ZeroMQ sockets of this process, from one context with one I/O thread."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, _SOCKETS)

    def subscribe(self, address: str, keep: int) -> Inbox:
        """Everything published at a ``tcp://`` address; at most `keep` messages wait, the rest is dropped.

        Reconnects for ever by itself. Raises `Unreachable` for what is no address.
        """
        socket = self._socket(zmq.SUB, keep)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        return self._connected(socket, address)

    def ask(self, address: str, keep: int) -> Inbox:
        """Somebody who answers one message with several; raises `Unreachable` as `subscribe` does."""
        return self._connected(self._socket(zmq.DEALER, keep), address)

    def close(self) -> None:
        """Close what is still open; call it when all feeds have ended."""
        self._context.destroy(linger=0)

    def _socket(self, kind: int, keep: int) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        options = {
            zmq.IPV6: 1,
            zmq.LINGER: 0,
            zmq.RCVHWM: keep,
            zmq.MAXMSGSIZE: _LARGEST,
            zmq.RECONNECT_IVL: _RECONNECT_MS[0],
            zmq.RECONNECT_IVL_MAX: _RECONNECT_MS[1],
            zmq.HEARTBEAT_IVL: _HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: _DEAD_MS,
        }
        for option, value in options.items():
            socket.setsockopt(option, value)
        return socket

    @staticmethod
    def _connected(socket: "zmq.Socket[bytes]", address: str) -> Inbox:
        inbox = Inbox(socket)  # watches from before the first connection
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            inbox.close()
            raise Unreachable(f"{address} can not be connected to: {error}") from None
        return inbox


def _resolve(arrived: "asyncio.Future[None]") -> None:
    if not arrived.done():
        arrived.set_result(None)
