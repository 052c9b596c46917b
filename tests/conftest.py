"""What all tests share: which run side by side, and a real Valkey, flushed for each test that asks."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis
from xdist.scheduler import LoadScopeScheduling

from controller.up import binaries
from extproc.state.store import Store
from extproc.supervise import open_files, tethered

# Some tests are a thousand clients.
open_files.allow_many()

# Speed is never asserted: machines are busy, and the first text that hypothesis draws builds its tables.
settings.register_profile("kvoy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kvoy")

STACKS = (
    "tests/benchmarks/handoff/",
    "tests/benchmarks/overhead/",
    "tests/benchmarks/replicas/",
    "tests/benchmarks/test_stack.py",
    "tests/envoy/",
    "tests/examples/",
    "tests/extproc/collect/test_app.py",
)
"""Tests of many processes at once, or of shares and latencies."""


class SideBySide(LoadScopeScheduling):
    """Files run side by side, but all of `STACKS` one after the other: two of them would lack processors."""

    def _split_scope(self, nodeid: str) -> str:
        return "stacks" if nodeid.startswith(STACKS) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    """With ``-n``."""
    return SideBySide(config, log)


class Valkey:
    """A valkey-server on a Unix socket, keeping nothing on disk."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="kvoy-valkey-", dir="/tmp")
        self._socket = f"{self._folder}/v.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        options = ["--port", "0", "--save", "", "--appendonly", "no", "--dir", self._folder]
        with open(f"{self._folder}/log", "ab") as log:
            self._process = subprocess.Popen(
                tethered((binaries.valkey(), "--unixsocket", self._socket, *options)), stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, Path(f"{self._folder}/log").read_text()
            assert time.monotonic() < deadline, "valkey-server does not answer"
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL: no goodbye to clients, and everything stored is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(self._socket)
                client.sendall(b"PING\r\n")
                return client.recv(7) == b"+PONG\r\n"
            except OSError:
                return False


@contextmanager
def _running() -> Iterator[Valkey]:
    server = Valkey()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A running server, shared by all tests: flush it, but never stop it."""
    with _running() as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A running server of this test alone: it may be killed and started again."""
    with _running() as server:
        yield server


@pytest.fixture
async def raw(valkey: Valkey) -> AsyncIterator[Redis]:
    """A plain client of the shared server, emptied first: to look at, or break, what is stored."""
    client = Redis.from_url(valkey.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def open_store(valkey: Valkey, raw: Redis) -> AsyncIterator[Callable[[], Store]]:
    """Opens stores of group ``g`` on the shared, emptied server."""
    opened: list[Store] = []

    def open_one() -> Store:
        opened.append(Store.connect(valkey.url, "g"))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    """A store of group ``g`` on the shared, emptied server."""
    return open_store()
