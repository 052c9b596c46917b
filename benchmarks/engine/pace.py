"""How fast answers grow. An engine computes step after step, and each answer gains a token by each.

A step takes longer the more answers there are, and longer still while a prompt is computed: with chunked
prefill a part of the prompt is computed in the same step, and every answer waits for it.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Pace:
    """Steps since the engine started, as a count that grows with time, in seconds of any monotonic clock."""

    alone_s: float
    """A step of one answer."""
    further_s: float
    """Added for each further answer."""
    chunk_s: float
    """Added while a prompt is computed."""
    started: float
    _steps: float = field(default=0.0, init=False)
    """Computed at `_at`."""
    _at: float = field(init=False)
    _step_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing to do."""
        self._at, self._step_s = self.started, self.alone_s

    def change(self, answers: int, is_prefilling: bool, now: float) -> bool:
        """So many answers grow from now on, with or without a prompt beside them; True: at another pace."""
        step_s = self.alone_s + max(0, answers - 1) * self.further_s + is_prefilling * self.chunk_s
        if step_s == self._step_s:
            return False
        self._steps, self._at, self._step_s = self.steps(now), now, step_s
        return True

    def steps(self, now: float) -> float:
        """Steps computed by a time since the last change, or shortly before it."""
        return self._steps + (now - self._at) / self._step_s if self._step_s else self._steps

    def due(self, steps: float) -> float:
        """When so many steps are computed, at the present pace."""
        return self._at + (steps - self._steps) * self._step_s
