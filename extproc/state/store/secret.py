"""The random bytes that seed all hashes of prompts in a group."""

from typing import Any

from extproc.state import keys
from extproc.state.store.connection import Connection

SECRET_BYTES = 16


class StoredSecret:
    """The group's secret, as far as it is stored."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._key = keys.secret(connection.group)

    async def read(self) -> bytes | None:
        """The secret; None before the first configuration is published, or after everything was lost."""
        stored: Any
        with self._connection.answering():
            stored = await self._connection.commands.get(self._key)
        return None if stored is None else bytes(stored)

    async def keep(self, known: bytes) -> bytes:
        """Store `known` if there is none, and return the one that is stored then."""
        pipeline = self._connection.commands.pipeline()
        pipeline.set(self._key, known, nx=True)
        pipeline.get(self._key)
        reply: Any
        with self._connection.answering():
            reply = await pipeline.execute()
        return bytes(reply[1])
