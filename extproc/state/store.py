"""The Redis operations, each one command or one atomic script (the only importer of redis).

Configuration: `publish` writes, `load`, `head` and `tail` read. Requests in flight: `state_inflight`,
`drop_instance`. Nothing is retried here; the loops that use a store decide when to try again (`backoff_s`).
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from extproc.state import keys, records
from extproc.state.records import Delete, Publication, Put, Record

_TIMEOUT_S = 2.0
"""Longest wait for a connection and for a reply, beyond the time a read is asked to block."""
_COMMAND_CONNECTIONS = 4
_LOG_LENGTH = 2000
"""Publications kept for readers that fall behind (about); a reader further behind loads everything."""
_TAIL_ENTRIES = 256
"""Publications per read: bounds the memory of a reader that catches up."""

_SCRIPTS = Path(__file__).parent / "scripts"
_HEAD_FIELDS = {b"epoch", b"generation"}


class StoreError(Exception):
    """The store could not do what was asked; the message names it."""


class StoreUnavailable(StoreError):
    """The store did not answer, or refused the command: nothing is known about its outcome."""


class StoreCorrupt(StoreError):
    """The store answered with something that is no value of this schema."""


class Head(NamedTuple):
    """Which configuration is stored."""

    epoch: str
    generation: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A whole configuration, and the position in the log from which `Store.tail` continues it."""

    epoch: str
    generation: int
    records: Mapping[str, Record]
    position: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests in flight per pod key, over all live instances; `known` if the asking one held a lease."""

    known: bool
    pods: Mapping[str, int]


def backoff_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 0, then 10 ms doubling up to 250 ms."""
    return min(0.25, 0.005 * 2.0 ** min(failures, 10)) if failures else 0.0


class Store:
    """One deployment group in one Redis or Valkey. Every operation raises `StoreError`."""

    def __init__(self, commands: Redis, reads: Redis, group: str, name: str) -> None:
        self._commands = commands
        self._reads = reads
        self._group = group
        self._name = name
        self._load = commands.register_script((_SCRIPTS / "load.lua").read_bytes())
        self._publish = commands.register_script((_SCRIPTS / "publish.lua").read_bytes())
        self._inflight = commands.register_script((_SCRIPTS / "inflight.lua").read_bytes())

    @classmethod
    def connect(cls, url: str, group: str) -> "Store":
        """The store at a redis://, rediss:// or unix:// URL; connects when first used.

        Raises ValueError for any other URL.
        """
        commands = _client(url, _COMMAND_CONNECTIONS, _TIMEOUT_S)
        # `tail` bounds its own wait, which depends on how long it is asked to block.
        reads = _client(url, 1, None)
        return cls(commands, reads, group, _shown(commands))

    async def close(self) -> None:
        """Close every connection."""
        await self._reads.aclose()
        await self._commands.aclose()

    async def load(self) -> Stored | None:
        """The whole configuration as of one instant; None when nothing complete is stored."""
        with self._answering():
            reply = await self._load(keys=[keys.config(self._group), keys.log(self._group)])
        if reply is None:
            return None
        epoch, generation, position, flat = reply
        with self._readable("configuration"):
            found = _records(dict(zip(flat[::2], flat[1::2], strict=True)))
            return Stored(epoch.decode(), int(generation), found, position.decode())

    async def head(self) -> Head | None:
        """Which configuration is stored; None when nothing complete is."""
        with self._answering():
            reply: Any = await self._commands.hmget(keys.config(self._group), ["epoch", "generation"])
        if None in reply:
            return None
        with self._readable("configuration"):
            return Head(reply[0].decode(), int(reply[1]))

    async def publish(self, publication: Publication) -> bool:
        """Apply a publication and log it, in one step; False, with nothing changed, when it does not fit.

        A plain publication fits when it has the stored epoch and the next generation. A whole one fits an
        empty store, or begins another epoch at a higher generation than the stored one: readers see
        generations grow as long as the store remembers, and of two publishers that begin at once one is
        refused. A plain one never fits an empty store, so an edit that follows a FLUSHALL can not pass for a
        whole configuration.
        """
        with self._answering():
            applied = await self._publish(
                keys=[keys.config(self._group), keys.log(self._group)], args=_publish_args(publication)
            )
        return bool(applied)

    async def tail(self, position: str, block_ms: int) -> list[tuple[str, Publication]]:
        """Publications logged after `position`, oldest first, each with its own position.

        Waits up to `block_ms` for the first one (0: not at all). Callers take turns.
        """
        log = keys.log(self._group)
        reply: Any
        with self._answering():
            async with asyncio.timeout(block_ms / 1000 + _TIMEOUT_S):
                reply = await self._reads.xread({log: position}, count=_TAIL_ENTRIES, block=block_ms or None)
        entries: list[Any] = reply[0][1] if reply else []
        with self._readable("log"):
            return [(at.decode(), records.decode_publication(fields[b"p"])) for at, fields in entries]

    async def state_inflight(self, instance: str, lease_ms: int, counts: Mapping[str, int]) -> Totals:
        """State all requests (pod key to a count above 0) that `instance` has in flight.

        Replaces what it stated before and stands until the lease runs out. Repeating it is harmless, so after
        an error just state again.
        """
        with self._answering():
            known, flat = await self._state(instance, lease_ms, counts)
        with self._readable("in-flight totals"):
            pods = {pod.decode(): int(n) for pod, n in zip(flat[::2], flat[1::2], strict=True)}
        return Totals(bool(known), pods)

    async def drop_instance(self, instance: str) -> None:
        """Withdraw an instance that ends and everything it stated."""
        with self._answering():
            await self._state(instance, 0, {})

    async def _state(self, instance: str, lease_ms: int, counts: Mapping[str, int]) -> Any:
        group = self._group
        args: list[str | int] = [instance, lease_ms, keys.inflight_of(group, "")]
        for pod, count in counts.items():
            args += (pod, count)
        own = keys.inflight_of(group, instance)
        return await self._inflight(
            keys=[keys.inflight_total(group), keys.inflight_leases(group), own], args=args
        )

    @contextmanager
    def _answering(self) -> Iterator[None]:
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
    def _readable(self, what: str) -> Iterator[None]:
        try:
            yield
        except (msgspec.MsgspecError, ValueError, KeyError) as error:
            raise StoreCorrupt(
                f"{self._name}: the {what} of group {self._group!r} is unreadable: {error}"
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


def _publish_args(publication: Publication) -> list[str | int | bytes]:
    puts: list[str | bytes] = []
    deletes: list[str] = []
    for change in publication.changes:
        match change:
            case Put(record):
                puts += (record.key, records.encode(record))
            case Delete(key):
                deletes.append(key)
    head: list[str | int] = [publication.epoch, publication.generation, int(publication.whole), _LOG_LENGTH]
    return [*head, records.encode(publication), len(puts) // 2, *puts, *deletes]


def _records(fields: Mapping[bytes, bytes]) -> dict[str, Record]:
    found = {}
    for name, raw in fields.items():
        if name in _HEAD_FIELDS:
            continue
        record = records.decode_record(raw)
        if record.key != name.decode():
            raise ValueError(f"field {name.decode()} holds {record.key}")
        found[record.key] = record
    return found
