import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from benchmarks.engine import EngineSettings, RunningEngine, running

CAPTURES = Path(__file__).parent / "captures"

Shape = dict[str, "Shape"] | list["Shape"] | str


def shape(value: object) -> Shape:
    """Names, order, nesting and types of a JSON value; a number is a number."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return "number" if type(value) in (int, float) else type(value).__name__


def same_shape(given: object, captured: object) -> bool:
    """Equal names in equal order, equal nesting and types."""
    return json.dumps(shape(given)) == json.dumps(shape(captured))


@dataclass(frozen=True)
class Captured:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, object]]:
        return [json.loads(line[6:]) for line in self.body.splitlines() if line.startswith("data: {")]


def _captured(text: str) -> Captured:
    head, _, body = text.partition("\n\n")
    status, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    return Captured(int(status.split()[1]), headers, body.strip())


@pytest.fixture(scope="session")
def captures() -> dict[str, Captured]:
    """Every exchange recorded from a real vLLM 0.32, by its name."""
    found = {path.stem: _captured(path.read_text().replace("\r", "")) for path in CAPTURES.glob("chat*.txt")}
    for section in (CAPTURES / "misc.txt").read_text().replace("\r", "").split("\n### "):
        name, _, rest = section.removeprefix("### ").strip().partition("\n")
        answer = re.search(r"^HTTP/1.1 ", rest, re.MULTILINE)
        if answer is not None:
            found[name] = _captured(rest[answer.start() :])
    return found


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[RunningEngine]]]:
    """Starts engines that are fast unless told otherwise, and stops them after the test."""
    async with AsyncExitStack() as stack:

        async def begin(**knobs: object) -> RunningEngine:
            fast = {
                "name": "pod-a",
                "model": "tiny",
                "inter_token_s": 0.0,
                "prefill_tokens_per_s": float("inf"),
            }
            return await stack.enter_async_context(running(EngineSettings(**{**fast, **knobs})))

        yield begin


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits for a condition with a deadline."""

    async def wait(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture(name="same_shape")
def _same_shape() -> Callable[[object, object], bool]:
    return same_shape
