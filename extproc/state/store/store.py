"""One deployment group in one Redis or Valkey: everything that is stored, by subject."""

from typing import Self

from extproc.state.store.configuration import Configuration
from extproc.state.store.connection import Connection
from extproc.state.store.leases import Leases
from extproc.state.store.secret import StoredSecret
from extproc.state.store.snapshots import Snapshots
from extproc.state.store.streams import Streams


class Store:
    """A store; leaving it as a context closes it. Every operation raises `StoreError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.configuration = Configuration(connection)
        self.streams = Streams(connection)
        self.snapshots = Snapshots(connection)
        self.leases = Leases(connection)
        self.secret = StoredSecret(connection)

    @classmethod
    def connect(cls, url: str, group: str) -> "Store":
        """The store at a redis://, rediss:// or unix:// URL; connects when first used.

        Raises ValueError for any other URL.
        """
        return cls(Connection.to(url, group))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()
