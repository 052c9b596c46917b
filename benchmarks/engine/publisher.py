"""KV events over ZeroMQ: one publisher for each rank."""

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import zmq
import zmq.asyncio

from benchmarks.engine.events import Event, EventLog
from benchmarks.engine.settings import EngineSettings

HIGH_WATER_MARK = 100_000
"""Batches that wait for a slow subscriber; more are dropped without a word, as in vLLM."""

_END = (-1).to_bytes(8, "big", signed=True)
"""Number of the message after the last one of a replay."""

_TRIES = 20
"""How often ports in a row are looked for when any may be taken."""

_Socket = TypeVar("_Socket", bound="zmq.Socket[Any]")


@dataclass(frozen=True, slots=True)
class Sockets:
    """What one rank publishes on."""

    pub: zmq.Socket[bytes]
    replay: zmq.asyncio.Socket | None


class Publisher:
    """Publishes the events of one rank, and again what a subscriber missed."""

    def __init__(
        self,
        settings: EngineSettings,
        rank: int,
        sockets: Sockets,
        wall: Callable[[], float],
        is_lost: Callable[[], bool],
    ) -> None:
        """``is_lost`` is asked before each batch whether it shall miss the subscribers."""
        self._settings = settings
        self._topic = settings.kv_events_topic.encode()
        self._log = EventLog(rank, settings.kv_events_buffer)
        self._sockets = sockets
        self._wall = wall
        self._is_lost = is_lost

    @property
    def source(self) -> dict[str, object]:
        """What ``/kv_event_sources`` says of this rank; like a vLLM bound to every address it names none."""
        replay = self._sockets.replay
        return {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": f"tcp://*:{_port(self._sockets.pub)}",
            "replay_endpoint": None if replay is None else f"tcp://*:{_port(replay)}",
            "buffer_steps": self._settings.kv_events_buffer,
            "hwm": HIGH_WATER_MARK,
            "max_queue_size": HIGH_WATER_MARK,
            "topic": self._settings.kv_events_topic,
        }

    def publish(self, events: list[Event]) -> None:
        """Send one batch; never waits."""
        number, payload = self._log.append(self._wall(), events)
        if not self._is_lost():
            self._sockets.pub.send_multipart((self._topic, _eight_bytes(number), payload), zmq.DONTWAIT)

    async def serve_replays(self) -> None:
        """Answer requests for the batches from a number on, for ever; others are ignored, as in vLLM."""
        replay = self._sockets.replay
        while replay is not None:
            request = await replay.recv_multipart()
            if len(request) != 3:
                continue
            client, _, start = request
            for number, payload in self._log.since(int.from_bytes(start, "big")):
                await replay.send_multipart((client, b"", self._topic, _eight_bytes(number), payload))
            await replay.send_multipart((client, b"", b"", _END, b""))


@contextmanager
def opened(settings: EngineSettings) -> Iterator[list[Sockets]]:
    """The sockets of every rank, bound; none if the engine publishes no events.

    OSError if a port is taken.
    """
    if settings.kv_events < 0:
        yield []
        return
    # One context for both, or each would bring a thread of its own.
    context = zmq.Context()
    replaying = zmq.asyncio.Context(context)
    with ExitStack() as stack:
        stack.callback(context.term)
        pubs = _bound(lambda: context.socket(zmq.PUB), settings, settings.kv_events)
        stack.callback(_close, pubs)
        if settings.kv_events_replay < 0:
            yield [Sockets(pub, None) for pub in pubs]
            return
        replays = _bound(lambda: replaying.socket(zmq.ROUTER), settings, settings.kv_events_replay)
        stack.callback(_close, replays)
        yield [Sockets(pub, replay) for pub, replay in zip(pubs, replays, strict=True)]


def _bound(make: Callable[[], _Socket], settings: EngineSettings, port: int) -> list[_Socket]:
    """A socket for each rank, on ports in a row from ``port``; 0 takes free ones."""
    ranks = settings.data_parallel_size
    for _ in range(_TRIES if port == 0 else 1):
        sockets = [make() for _ in range(ranks)]
        try:
            _bind(sockets, settings.host, port)
        except zmq.ZMQError as error:
            refusal = error
            _close(sockets)
        else:
            return sockets
    raise OSError(refusal.errno, f"{refusal.strerror} (KV events: {ranks} ports from {port})")


def _bind(sockets: Sequence[_Socket], host: str, port: int) -> None:
    address = str(socket.getaddrinfo(host, None)[0][4][0])
    bracketed = f"[{address}]" if ":" in address else address
    for one in sockets:
        one.set_hwm(HIGH_WATER_MARK)
        one.setsockopt(zmq.IPV6, ":" in address)
        one.bind(f"tcp://{bracketed}:{port}")
        port = _port(one) + 1


def _close(sockets: Iterable[_Socket]) -> None:
    for one in sockets:
        one.close(linger=0)


def _port(bound: "zmq.Socket[Any]") -> int:
    return int(bound.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])


def _eight_bytes(number: int) -> bytes:
    return number.to_bytes(8, "big")
