"""Blocks that outlive their request until another engine has them. Time is an argument, in seconds."""

import asyncio
from dataclasses import dataclass, field

from benchmarks.engine.cache import Lease


@dataclass(slots=True, eq=False)
class Kept:
    """The blocks of one computed prompt."""

    key: str
    """By which the other engine asks for them."""
    lease: Lease
    prompt: str
    """Its fingerprint."""
    until: float
    """When nobody needs to come for them any more."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the blocks are given back, fetched or not."""


class Shelf:
    """What is kept, and for what nobody will come."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._unwanted: dict[str, float] = {}
        """Keys of prompts that are not computed yet, and when to forget them."""

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def next_at(self) -> float | None:
        """When `expire` has something to do; None while nothing is kept."""
        return min((kept.until for kept in self._kept.values()), default=None)

    def put(self, kept: Kept) -> Kept | None:
        """Keep it; returns what has to go: an older one with its key, or itself if nobody wants it."""
        if self._unwanted.pop(kept.key, None) is not None:
            return kept
        older = self._kept.get(kept.key)
        self._kept[kept.key] = kept
        return older

    def take(self, key: str) -> Kept | None:
        """Somebody has come for it; None if it is not there."""
        self._unwanted.pop(key, None)
        return self._kept.pop(key, None)

    def discard(self, kept: Kept) -> bool:
        """Nobody will come for it; False if it is not there."""
        if self._kept.get(kept.key) is not kept:
            return False
        del self._kept[kept.key]
        return True

    def refuse(self, key: str, until: float) -> None:
        """Whoever was to come for it has left before it was computed."""
        self._unwanted[key] = until

    def expire(self, now: float) -> list[Kept]:
        """What nobody has come for in time, which is not kept any more."""
        self._unwanted = {key: until for key, until in self._unwanted.items() if until > now}
        late = [kept for kept in self._kept.values() if kept.until <= now]
        for kept in late:
            del self._kept[kept.key]
        return late
