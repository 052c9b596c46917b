"""A load against fleets behind one `kvoy up`: when each token of each answer came."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random

import aiohttp
import yaml

from benchmarks.handoff.fleets import Fleet, running_fleets
from benchmarks.handoff.loads import Load
from benchmarks.handoff.pods import Pod, manifests
from benchmarks.stack import kvoy_up

_NO_TOKEN = (b'"choices":[]', b"[DONE]")


class BadAnswer(Exception):
    """An answer that is no good: another status than 200, or fewer tokens than asked for."""


@dataclass(slots=True)
class Answer:
    """One streamed answer, in seconds of one clock."""

    sent: float
    tokens: list[float] = field(default_factory=list)
    """When each came."""

    @property
    def ttft_s(self) -> float:
        return self.tokens[0] - self.sent

    @property
    def gaps_s(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.tokens)]

    @property
    def duration_s(self) -> float:
        return self.tokens[-1] - self.sent


@dataclass(frozen=True, slots=True)
class Played:
    """What a fleet made of a load."""

    fleet: Fleet
    load: Load
    answers: Sequence[Answer]
    began: float
    seconds: float
    """For which requests were sent."""

    @property
    def tokens_per_s(self) -> float:
        """Tokens of answers while requests were sent."""
        ended = self.began + self.seconds
        return sum(at < ended for answer in self.answers for at in answer.tokens) / self.seconds


async def play(load: Load, seconds: float, seed: int) -> list[Played]:
    """The load against each of its fleets, side by side: all of them meet whatever else the machine does."""
    async with running_fleets(load.fleets, load.context) as pods, _gateway(load.fleets, pods) as url:
        async with _client() as http, asyncio.TaskGroup() as tasks:
            played = [
                tasks.create_task(_play(http, url, fleet, load, seconds, seed)) for fleet in load.fleets
            ]
    return [each.result() for each in played]


async def _play(
    http: aiohttp.ClientSession, url: str, fleet: Fleet, load: Load, seconds: float, seed: int
) -> Played:
    rng, began = Random(seed), time.perf_counter()
    answers: list[Answer] = []

    async def later(at: float, body: bytes) -> None:
        await asyncio.sleep(began + at - time.perf_counter())
        answers.append(await _ask(http, url, load, body))

    async def client() -> None:
        while time.perf_counter() < began + seconds:
            answers.append(await _ask(http, url, load, load.body(fleet.name, rng)))

    async with asyncio.TaskGroup() as tasks:
        for at in load.arrivals(seconds, rng) if load.rate else ():
            tasks.create_task(later(at, load.body(fleet.name, rng)))
        for _ in range(load.clients):
            tasks.create_task(client())
    return Played(fleet, load, answers, began, seconds)


async def _ask(http: aiohttp.ClientSession, url: str, load: Load, body: bytes) -> Answer:
    answer = Answer(time.perf_counter())
    async with http.post(f"{url}/v1/completions", data=body) as response:
        if response.status != 200:
            raise BadAnswer(f"status {response.status}: {await response.text()}")
        async for line in response.content:
            if line.startswith(b"data: ") and not any(mark in line for mark in _NO_TOKEN):
                answer.tokens.append(time.perf_counter())
    if len(answer.tokens) != load.answer_tokens:
        raise BadAnswer(f"{len(answer.tokens)} of {load.answer_tokens} tokens came")
    return answer


@asynccontextmanager
async def _gateway(fleets: Sequence[Fleet], pods: Mapping[str, Sequence[Pod]]) -> AsyncIterator[str]:
    """The URL of a `kvoy up` with one worker over these fleets."""
    objects = [one for fleet in fleets for one in manifests(fleet.name, pods[fleet.name], fleet.connector)]
    with tempfile.TemporaryDirectory(prefix="kvoy-bench-") as folder:
        (Path(folder) / "bench.yaml").write_text(yaml.safe_dump_all(objects))
        async with kvoy_up(Path(folder), "--workers", "1") as stack:
            yield stack.url


def _client() -> aiohttp.ClientSession:
    headers = {"content-type": "application/json"}
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers)
