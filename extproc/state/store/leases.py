"""Leases: which process holds what; and membership: which processes there are."""

from collections.abc import Collection
from typing import Any

from extproc.state import keys
from extproc.state.store.connection import Connection


class Leases:
    """Leases and memberships of a group, each for things of some `kind`; time is the Redis clock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._claim = connection.script("claim")
        self._release = connection.script("release")
        self._appear = connection.script("appear")

    async def claim(self, kind: str, holder: str, names: Collection[str], ttl_ms: int) -> frozenset[str]:
        """Take or renew the leases of `names` for `ttl_ms` from now; returns those that `holder` now holds.

        Free, expired and own ones are held afterwards; what another holds is left to it. Count the time
        from before the call: by then the lease runs out at the earliest.
        """
        asked = list(names)
        if not asked:
            return frozenset()
        with self._connection.answering():
            reply: Any = await self._claim(keys=self._keys(kind, asked), args=[holder, ttl_ms])
        return frozenset(name for name, held in zip(asked, reply, strict=True) if held)

    async def release(self, kind: str, holder: str, names: Collection[str]) -> None:
        """Give up leases that `holder` has; those of others stay."""
        asked = list(names)
        if asked:
            with self._connection.answering():
                await self._release(keys=self._keys(kind, asked), args=[holder])

    async def appear(self, kind: str, member: str, ttl_ms: int) -> frozenset[str]:
        """Count `member` as alive for `ttl_ms` from now, and return all that are alive, itself included."""
        with self._connection.answering():
            reply: Any = await self._appear(
                keys=[keys.members(self._connection.group, kind)], args=[member, ttl_ms]
            )
        with self._connection.readable("members"):
            return frozenset(name.decode() for name in reply)

    async def disappear(self, kind: str, member: str) -> None:
        """Stop counting `member` as alive."""
        with self._connection.answering():
            await self._connection.commands.zrem(keys.members(self._connection.group, kind), member)

    def _keys(self, kind: str, names: Collection[str]) -> list[str]:
        return [keys.lease(self._connection.group, kind, name) for name in names]
