"""How long an event loop was held up: a beat that comes late tells."""

import asyncio
import time
from typing import NamedTuple

STALL_S = 0.005
"""Longer than this is counted."""
_BEAT_S = 0.002


class Held(NamedTuple):
    """How a loop was held up by what it did itself: processor time of its thread between two beats."""

    longest_s: float = 0.0
    stalls: int = 0
    """How often it was longer than `STALL_S`."""
    longest_late_s: float = 0.0
    """The latest beat by the clock: whatever else ran on the machine counts too."""

    def worse(self, other: "Held") -> "Held":
        """Both together."""
        return Held(
            max(self.longest_s, other.longest_s),
            self.stalls + other.stalls,
            max(self.longest_late_s, other.longest_late_s),
        )


class Stalls:
    """Watches the running loop."""

    def __init__(self) -> None:
        self._held = Held()

    def taken(self) -> Held:
        """What was seen since the last call."""
        held, self._held = self._held, Held()
        return held

    async def run(self) -> None:
        """Beat until cancelled."""
        clock, cpu = time.monotonic(), time.thread_time()
        while True:
            await asyncio.sleep(_BEAT_S)
            now, used = time.monotonic(), time.thread_time()
            self._note(used - cpu, now - clock - _BEAT_S)
            clock, cpu = now, used

    def _note(self, busy_s: float, late_s: float) -> None:
        self._held = self._held.worse(Held(busy_s, int(busy_s > STALL_S), late_s))
