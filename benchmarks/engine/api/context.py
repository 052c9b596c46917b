"""What the handlers of one engine share."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.engine.api.ask import Envelope
from benchmarks.engine.faults import Faults
from benchmarks.engine.journal import Journal
from benchmarks.engine.models import Models
from benchmarks.engine.runtime import Clock, Runtime
from benchmarks.engine.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class Context:
    """One engine, as its HTTP handlers see it."""

    settings: EngineSettings
    runtime: Runtime
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
    fingerprint: str
    started: int
    """Unix seconds."""

    def envelope(self, request_id: str, model: str | None) -> Envelope:
        """What every chunk of an answer repeats."""
        return Envelope(request_id, int(self.wall()), model or self.models.base, self.fingerprint)
