"""Snapshots of who has which blocks: one expiring string per life of an engine and namespace."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from extproc.state import keys
from extproc.state.store.connection import Connection

SNAPSHOT_TTL_S = 900.0
"""How long a snapshot outlives its last writer."""

_BATCH = 8
"""Snapshots per round trip: each may have some hundred KB."""


class Subject(NamedTuple):
    """What one snapshot is of."""

    namespace: int
    """`extproc.cache.frames` names them."""
    life: int


class Snapshots:
    """The stored cache snapshots of a group; their bytes are `extproc.cache.snapshots`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, subject: Subject, raw: bytes, ttl_s: float = SNAPSHOT_TTL_S) -> None:
        """Store a snapshot in place of the former one; it expires unless written or kept again."""
        with self._connection.answering():
            await self._connection.commands.set(self._key(subject), raw, px=int(ttl_s * 1000))

    async def read(self, subjects: Sequence[Subject]) -> dict[Subject, bytes]:
        """The stored ones of these snapshots; for many, read a few at a time, so that they need not all be
        held at once."""
        found: dict[Subject, bytes] = {}
        for at in range(0, len(subjects), _BATCH):
            batch = subjects[at : at + _BATCH]
            with self._connection.answering():
                replies: Any = await self._connection.commands.mget([self._key(s) for s in batch])
            found |= {s: raw for s, raw in zip(batch, replies, strict=True) if raw is not None}
        return found

    async def keep(self, subjects: Sequence[Subject], ttl_s: float = SNAPSHOT_TTL_S) -> set[Subject]:
        """Let unchanged snapshots live on; returns those that are not stored and have to be written."""
        pipeline = self._connection.commands.pipeline(transaction=False)
        for subject in subjects:
            pipeline.pexpire(self._key(subject), int(ttl_s * 1000))
        with self._connection.answering():
            replies = await pipeline.execute()
        return {subject for subject, kept in zip(subjects, replies, strict=True) if not kept}

    def _key(self, subject: Subject) -> str:
        return keys.cache_snapshot(self._connection.group, subject.namespace, subject.life)
