"""The two streams that everybody reads: what is stated by the second, and changes of who has which blocks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from extproc.state import keys, live
from extproc.state.live import Statement
from extproc.state.store.connection import Connection

LIVE_RETENTION_S = 10.0
"""How long a statement is kept (about): twice as long as it is believed."""
CACHE_RETENTION_S = 120.0
"""How long changes are kept (about): many times longer than the oldest snapshot to continue from."""
START = "0-0"
"""The position before the first entry of a stream."""

_READ_ENTRIES = 128
"""Entries of each stream per read: a reply is parsed at a stretch."""


class Positions(NamedTuple):
    """Up to where the streams have been read: ids of entries, `START` before the first."""

    live: str
    cache: str


class Entry(NamedTuple):
    """Changes that one producer published at once."""

    position: str
    producer: str
    sequence: int
    """Counts the entries of this producer, from 1 on, so that a reader knows what it has missed."""
    frames: bytes


class Read(NamedTuple):
    """What a read has found, in the order of the streams."""

    positions: Positions
    """From where to read on."""
    statements: list[Statement]
    changes: list[Entry]
    total: int
    """Entries found, the unreadable ones included."""
    unreadable: int
    """Entries that are no values of this schema: they are left out."""
    full: bool
    """There may be more to read at once."""


class Ends(NamedTuple):
    """Where the streams end at one instant."""

    now_ms: int
    """Redis clock, from which positions are made."""
    positions: Positions


class Streams:
    """The live stream and the cache stream of a group."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._live = keys.live(connection.group)
        self._cache = keys.cache(connection.group)
        self._append = connection.script("append")
        self._ends = connection.script("ends")

    async def state(self, statements: Sequence[Statement]) -> None:
        """Publish statements as one entry of the live stream."""
        args: list[str | bytes | int] = [int(LIVE_RETENTION_S * 1000), "f", live.encode(statements)]
        with self._connection.answering():
            await self._append(keys=[self._live], args=args)

    async def publish(self, producer: str, sequence: int, frames: bytes) -> str:
        """Publish changes as one entry of the cache stream, and return its position.

        After an error its outcome is unknown: publish what follows under the next `sequence`, or the same
        again, which readers take once.
        """
        args: list[str | bytes | int] = [int(CACHE_RETENTION_S * 1000)]
        args += ("p", producer, "s", sequence, "f", frames)
        with self._connection.answering():
            reply = await self._append(keys=[self._cache], args=args)
        return str(reply.decode())

    async def read(self, positions: Positions, block_ms: int) -> Read:
        """What both streams hold after `positions`; waits up to `block_ms` for the first (0: not at all)."""
        asked = {self._live: positions.live, self._cache: positions.cache}
        found = await self._connection.read(asked, _READ_ENTRIES, block_ms)
        stated = found.get(self._live.encode(), [])
        changed = found.get(self._cache.encode(), [])
        statements, illegible = _statements(stated)
        changes, unreadable = _entries(changed)
        after = Positions(_last(stated, positions.live), _last(changed, positions.cache))
        return Read(
            positions=after,
            statements=statements,
            changes=changes,
            total=len(stated) + len(changed),
            unreadable=illegible + unreadable,
            full=max(len(stated), len(changed)) == _READ_ENTRIES,
        )

    async def statements(self, position: str) -> tuple[list[Statement], str]:
        """What the live stream holds after a position, without waiting, and from where to read on."""
        found = await self._connection.read({self._live: position}, _READ_ENTRIES, 0)
        stated = found.get(self._live.encode(), [])
        return _statements(stated)[0], _last(stated, position)

    async def between(self, after: str, until: str, count: int) -> tuple[list[Entry], str]:
        """At most `count` entries of the cache stream after one position and up to another.

        With the position from which to ask on, which is `until` after the last.
        """
        with self._connection.answering():
            found: Any = await self._connection.commands.xrange(self._cache, f"({after}", until, count)
        return _entries(found)[0], _last(found, until) if len(found) == count else until

    async def ends(self) -> Ends:
        """Where the streams end now: reading on from there misses nothing that is published later."""
        with self._connection.answering():
            reply: Any = await self._ends(keys=[self._live, self._cache])
        with self._connection.readable("ends of the streams"):
            now_ms, stated, changed = reply
            return Ends(int(now_ms), Positions(stated.decode(), changed.decode()))


def moment_ms(position: str) -> int:
    """When an entry was added: ms since 1970 on the Redis clock."""
    return int(position.partition("-")[0])


def order(position: str) -> tuple[int, int]:
    """Positions compare as these do."""
    ms, _, number = position.partition("-")
    return int(ms), int(number or 0)


def _last(entries: Sequence[tuple[bytes, Any]], otherwise: str) -> str:
    return entries[-1][0].decode() if entries else otherwise


def _statements(entries: Sequence[tuple[bytes, Any]]) -> tuple[list[Statement], int]:
    found: list[Statement] = []
    unreadable = 0
    for _, fields in entries:
        try:
            found += live.decode(fields[b"f"])
        except (msgspec.MsgspecError, ValueError, KeyError, RecursionError):
            unreadable += 1
    return found, unreadable


def _entries(entries: Sequence[tuple[bytes, Any]]) -> tuple[list[Entry], int]:
    found: list[Entry] = []
    unreadable = 0
    for at, fields in entries:
        try:
            found.append(Entry(at.decode(), fields[b"p"].decode(), int(fields[b"s"]), fields[b"f"]))
        except (ValueError, KeyError):
            unreadable += 1
    return found, unreadable
