from collections.abc import Callable

import pytest

from benchmarks.engine.api.ask import Choice, Envelope
from benchmarks.engine.batch import Job, Prefilled
from benchmarks.engine.runtime import Work
from benchmarks.engine.tokens import encode


@pytest.fixture
def envelope() -> Envelope:
    return Envelope("r1", 1795367721, "tiny", "vllm-0.32.0-bcfea2e3", cache_details=True)


@pytest.fixture
def choice() -> Callable[..., Choice]:
    """An answer of ``text`` to a prompt of 122 tokens in blocks of 32, as captured."""

    def make(
        text: str = "pod-a says hello", cached: int = 96, created: int = 0, reason: str = "length"
    ) -> Choice:
        work = Work(encode("x" * 4 * 122), encode(text), reason, 16)
        return Choice(work, Prefilled(Job(0, work.prompt, work.output), 0.0, 0.0, 0.0, cached, created))

    return make
