"""The configuration: `publish` writes, `load`, `head` and `tail` read."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from extproc.state import keys, records
from extproc.state.records import Delete, Publication, Put, Record
from extproc.state.store.connection import Connection
from extproc.state.store.secret import SECRET_BYTES, StoredSecret

_LOG_LENGTH = 2000
"""Publications kept for readers that fall behind (about); a reader further behind loads everything."""
_TAIL_ENTRIES = 256
"""Publications per read: bounds the memory of a reader that catches up."""
_HEAD_FIELDS = {b"epoch", b"generation"}


class Head(NamedTuple):
    """Which configuration is stored."""

    epoch: str
    generation: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A whole configuration, and the position in the log from which `Configuration.tail` continues it."""

    epoch: str
    generation: int
    records: Mapping[str, Record]
    position: str


class Configuration:
    """The stored configuration of a group."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._config = keys.config(connection.group)
        self._log = keys.log(connection.group)
        self._load = connection.script("load")
        self._publish = connection.script("publish")
        self._stored_secret = StoredSecret(connection)
        self._secret = secrets.token_bytes(SECRET_BYTES)
        """The group's once something was published: an emptied store gets it back."""

    async def load(self) -> Stored | None:
        """The whole configuration as of one instant; None when nothing complete is stored."""
        with self._connection.answering():
            reply = await self._load(keys=[self._config, self._log])
        if reply is None:
            return None
        epoch, generation, position, flat = reply
        with self._connection.readable("configuration"):
            found = _records(dict(zip(flat[::2], flat[1::2], strict=True)))
        self._secret = await self._stored_secret.read() or self._secret
        with self._connection.readable("configuration"):
            return Stored(epoch.decode(), int(generation), found, position.decode())

    async def head(self) -> Head | None:
        """Which configuration is stored; None when nothing complete is."""
        with self._connection.answering():
            reply: Any = await self._connection.commands.hmget(self._config, ["epoch", "generation"])
        if None in reply:
            return None
        with self._connection.readable("configuration"):
            return Head(reply[0].decode(), int(reply[1]))

    async def publish(self, publication: Publication) -> bool:
        """Apply a publication and log it, in one step; False, with nothing changed, when it does not fit.

        A plain publication fits when it has the stored epoch and the next generation. A whole one fits an
        empty store, or begins another epoch at a higher generation than the stored one: readers see
        generations grow as long as the store remembers, and of two publishers that begin at once one is
        refused. A plain one never fits an empty store, so an edit that follows a FLUSHALL can not pass for a
        whole configuration. A whole one also sees to it that the group has a secret, before anybody runs it.
        """
        if publication.whole:
            self._secret = await self._stored_secret.keep(self._secret)
        with self._connection.answering():
            applied = await self._publish(keys=[self._config, self._log], args=_publish_args(publication))
        return bool(applied)

    async def tail(self, position: str, block_ms: int) -> list[tuple[str, Publication]]:
        """Publications logged after `position`, oldest first, each with its own position.

        Waits up to `block_ms` for the first one (0: not at all). Callers take turns.
        """
        found = await self._connection.read({self._log: position}, _TAIL_ENTRIES, block_ms)
        with self._connection.readable("log"):
            return [
                (at.decode(), records.decode_publication(fields[b"p"]))
                for entries in found.values()
                for at, fields in entries
            ]


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
