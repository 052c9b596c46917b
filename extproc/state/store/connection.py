"""The connections to one Redis or Valkey, and what can go wrong with them (the only importer of redis)."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

_TIMEOUT_S = 2.0
"""Longest wait for a connection and for a reply, beyond the time a read is asked to block."""
_COMMAND_CONNECTIONS = 4
_READ_CONNECTIONS = 2
"""Reads that may block at a time: one of the configuration's log, one of the streams."""

_SCRIPTS = Path(__file__).parent / "scripts"


class StoreError(Exception):
    """The store could not do what was asked; the message names it."""


class StoreUnavailable(StoreError):
    """The store did not answer, or refused the command: nothing is known about its outcome."""


class StoreCorrupt(StoreError):
    """The store answered with something that is no value of this schema."""


def backoff_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 0, then 10 ms doubling up to 250 ms."""
    return min(0.25, 0.005 * 2.0 ** min(failures, 10)) if failures else 0.0


class Connection:
    """What the operations of a store have in common: clients, scripts, and one way to fail."""

    def __init__(self, commands: Redis, reads: Redis, group: str, name: str) -> None:
        self.commands = commands
        """For commands that answer at once."""
        self.group = group
        self._reads = reads
        self._name = name

    @classmethod
    def to(cls, url: str, group: str) -> "Connection":
        """Connects when first used; raises ValueError for what is no redis://, rediss:// or unix:// URL."""
        commands = _client(url, _COMMAND_CONNECTIONS, _TIMEOUT_S)
        # `read` bounds its own wait, which depends on how long it is asked to block.
        reads = _client(url, _READ_CONNECTIONS, None)
        return cls(commands, reads, group, _shown(commands))

    async def close(self) -> None:
        """Close every connection."""
        await self._reads.aclose()
        await self.commands.aclose()

    def script(self, name: str) -> AsyncScript:
        """The atomic step in ``scripts/<name>.lua``."""
        return self.commands.register_script((_SCRIPTS / f"{name}.lua").read_bytes())

    async def read(self, positions: Mapping[str, str], count: int, block_ms: int) -> dict[bytes, list[Any]]:
        """Entries of each stream after its position, at most `count` of each; streams without any are absent.

        Waits up to `block_ms` for the first one (0: not at all).
        """
        asked: dict[Any, Any] = dict(positions)
        reply: Any
        with self.answering():
            async with asyncio.timeout(block_ms / 1000 + _TIMEOUT_S):
                reply = await self._reads.xread(asked, count=count, block=block_ms or None)
        return dict(reply or ())

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Raises `StoreUnavailable` for whatever goes wrong between asking and the reply."""
        before = _cancellations()
        try:
            yield
        except TimeoutError as error:
            raise StoreUnavailable(f"{self._name} did not answer in time") from error
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{self._name}: {error}") from error
        finally:
            # redis-py writes under `asyncio.wait_for`, which in Python 3.11 answers a cancellation with the
            # result where both come at once: a loop over the store would never end.
            if _cancellations() > before:
                raise asyncio.CancelledError

    @contextmanager
    def readable(self, what: str) -> Iterator[None]:
        """Raises `StoreCorrupt`, naming `what` was read, for a reply that is no value of this schema."""
        try:
            yield
        except (msgspec.MsgspecError, ValueError, KeyError, RecursionError) as error:
            raise StoreCorrupt(
                f"{self._name}: the {what} of group {self.group!r} is unreadable: {error}"
            ) from error


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _client(url: str, connections: int, timeout_s: float | None) -> Redis:
    # redis-py's own defaults retry for seconds, which hides from the caller that the store is away.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return Redis.from_pool(pool)


def _shown(client: Redis) -> str:
    """Where the client connects, without user and password."""
    target = client.connection_pool.connection_kwargs
    if "path" in target:
        return f"the store at unix://{target['path']}"
    return f"the store at {target.get('host', 'localhost')}:{target.get('port', 6379)}"
