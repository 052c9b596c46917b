"""One deployment group in one Redis or Valkey: everything that is stored, by subject."""

import secrets

from extproc.state import keys
from extproc.state.store.configuration import Configuration
from extproc.state.store.connection import Connection
from extproc.state.store.leases import Leases
from extproc.state.store.snapshots import Snapshots
from extproc.state.store.streams import Streams

_SECRET_BYTES = 16


class Store:
    """A store. Every operation raises `StoreError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.configuration = Configuration(connection)
        self.streams = Streams(connection)
        self.snapshots = Snapshots(connection)
        self.leases = Leases(connection)

    @classmethod
    def connect(cls, url: str, group: str) -> "Store":
        """The store at a redis://, rediss:// or unix:// URL; connects when first used.

        Raises ValueError for any other URL.
        """
        return cls(Connection.to(url, group))

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()

    async def secret(self, known: bytes | None = None) -> bytes:
        """The random bytes (16) that the group seeds its hashes with; the first to ask makes them.

        A process that has learnt them passes them as `known`: an emptied store gets them back, so that hashes
        made before and after agree.
        """
        key = keys.secret(self._connection.group)
        pipeline = self._connection.commands.pipeline()
        pipeline.set(key, known or secrets.token_bytes(_SECRET_BYTES), nx=True)
        pipeline.get(key)
        with self._connection.answering():
            _, stored = await pipeline.execute()
        return bytes(stored)
