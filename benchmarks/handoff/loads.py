"""What is asked of a fleet, and when."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.engine.tokens import BYTES_PER_TOKEN
from benchmarks.handoff.fleets import P1D3, P2D2, P3D1, TOGETHER, Fleet


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one size. No two prompts have a beginning in common."""

    name: str
    prompt_tokens: int
    answer_tokens: int
    fleets: Sequence[Fleet]
    """Who gets them, each all of them."""
    rate: float = 0.0
    """Requests per second (Poisson); 0: `clients` send the next one when the last is answered."""
    clients: int = 0

    @property
    def text(self) -> str:
        pace = f"{self.rate:g}/s" if self.rate else f"{self.clients} clients"
        return f"{self.name}: {self.prompt_tokens:,} + {self.answer_tokens}, {pace}"

    @property
    def context(self) -> int:
        """Tokens of a request that is half way through."""
        return self.prompt_tokens + self.answer_tokens // 2

    def arrivals(self, seconds: float, rng: Random) -> list[float]:
        """Seconds at which requests leave; equal for equal generators."""
        found: list[float] = []
        at = rng.expovariate(self.rate)
        while at < seconds:
            found.append(at)
            at += rng.expovariate(self.rate)
        return found or [0.0]

    def body(self, model: str, rng: Random) -> bytes:
        """A streamed completion request with a new prompt, whose answer has exactly `answer_tokens`."""
        prompt = rng.randbytes(self.prompt_tokens * BYTES_PER_TOKEN // 2).hex()
        asked = {"model": model, "prompt": prompt, "max_tokens": self.answer_tokens}
        return json.dumps({**asked, "ignore_eos": True, "stream": True}).encode()


LOADS = (
    Load("long prompts", 8192, 64, (TOGETHER, P2D2, P3D1), rate=1.5),
    Load("long prompts, all that goes", 8192, 64, (TOGETHER, P2D2, P3D1), clients=16),
    Load("long answers", 512, 512, (TOGETHER, P2D2, P1D3), rate=1.5),
)
