"""An engine's side of ZeroMQ: publishes numbered batches, and repeats them on request."""

import threading
import time
from collections import deque

import msgspec
import zmq

END = (-1).to_bytes(8, "big", signed=True)


class Publisher:
    """A PUB and a ROUTER socket as vLLM has them."""

    def __init__(self, context, *, buffer=10_000, port=0, replay_port=0):
        self._pub = context.socket(zmq.PUB)
        self._pub.set_hwm(100_000)
        self._router = context.socket(zmq.ROUTER)
        self.endpoint = _bound(self._pub, port)
        self.replay_endpoint = _bound(self._router, replay_port)
        self._buffer = deque(maxlen=buffer)
        self._seq = 0
        self._stop = threading.Event()
        self.topics = True
        """Whether repeated batches carry a topic: since vLLM 0.26."""
        self.mute = False
        """Ignore requests to repeat."""
        self.torn = set()
        """Batches left out of the next answer."""
        self.asked = []
        """What was asked for."""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def ports(self):
        return {
            "port": int(self.endpoint.rpartition(":")[2]),
            "replay_port": int(self.replay_endpoint.rpartition(":")[2]),
        }

    def publish(self, *events, lost=False, at=None):
        """One batch; a lost one is only kept."""
        payload = msgspec.msgpack.encode([time.time() if at is None else at, events, 0])
        self.send(payload, lost=lost)

    def send(self, payload, lost=False):
        self._buffer.append((self._seq, payload))
        if not lost:
            self._pub.send_multipart([b"topic", self._seq.to_bytes(8, "big"), payload])
        self._seq += 1

    def send_raw(self, *parts):
        self._pub.send_multipart(parts)

    def close(self):
        """A second time does nothing."""
        self._stop.set()
        self._thread.join()
        self._pub.close(linger=0)
        self._router.close(linger=0)

    def _serve(self):
        while not self._stop.is_set():
            if self._router.poll(10):
                peer, _, start = self._router.recv_multipart()
                self.asked.append(int.from_bytes(start, "big"))
                if not self.mute:
                    self._repeat(peer, self.asked[-1])

    def _repeat(self, peer, start):
        topic = [b"topic"] if self.topics else []
        torn, self.torn = self.torn, set()
        for seq, payload in list(self._buffer):
            if seq >= start and seq not in torn:
                self._router.send_multipart([peer, b"", *topic, seq.to_bytes(8, "big"), payload])
        self._router.send_multipart([peer, b"", *([b""] if self.topics else []), END, b""])


def _bound(socket, port):
    """Bound where a publisher before it may have been a moment ago."""
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.bind(f"tcp://127.0.0.1:{port or '*'}")
            return socket.getsockopt_string(zmq.LAST_ENDPOINT)
        except zmq.ZMQError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
