"""What the handlers of one engine share."""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from benchmarks.engine.api.ask import Envelope
from benchmarks.engine.faults import Faults
from benchmarks.engine.journal import Journal, Received
from benchmarks.engine.models import Models
from benchmarks.engine.ranks import Ranks
from benchmarks.engine.runtime import Clock
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.desk import Desk

ENTRY: web.RequestKey[Received] = web.RequestKey("entry", Received)
"""The journal's entry of a request."""
REQUEST_ID: web.RequestKey[str] = web.RequestKey("id", str)
RANK: web.RequestKey[int] = web.RequestKey("rank", int)
"""The rank that computes a request."""


@dataclass(frozen=True, slots=True)
class Context:
    """One engine, as its HTTP handlers see it."""

    settings: EngineSettings
    ranks: Ranks
    kv_event_sources: dict[str, dict[str, object]]
    """Of each rank, named by its number."""
    models: Models
    faults: Faults
    journal: Journal
    clock: Clock
    """Monotonic seconds."""
    wall: Clock
    """Unix seconds."""
    new_id: Callable[[], str]
    refuse: Callable[[float], None]
    """Go down for so many seconds."""
    die: Callable[[], None]
    """Go down for ever."""
    desk: Desk
    """Transfers of KV caches."""
    fingerprint: str
    started: int
    """Unix seconds."""

    def envelope(self, request_id: str, model: str | None) -> Envelope:
        """What every chunk of an answer repeats."""
        return Envelope(
            request_id,
            int(self.wall()),
            model or self.models.base,
            self.fingerprint,
            self.settings.prompt_tokens_details,
        )
