"""Plays a trace: each arrival asks a worker, in turn; each end is reported to the worker that decided."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.replicas.pods import Pod, Served
from benchmarks.replicas.trace import Arrival
from benchmarks.replicas.workers import Worker


@dataclass(slots=True)
class Outcome:
    """What came of a trace."""

    served: list[Served] = field(default_factory=list)
    by_pod: Counter[str] = field(default_factory=Counter)
    lookups: list[float] = field(default_factory=list)
    """Seconds from arrival to decision."""

    @property
    def hit_rate(self) -> float:
        """Share of all prompt tokens that were in a cache, 0 to 1."""
        return sum(s.cached_tokens for s in self.served) / sum(s.prompt_tokens for s in self.served)

    def ttft_s(self, share: float) -> float:
        """The time to first token below which this share of the requests lies."""
        ordered = sorted(s.ttft_s for s in self.served)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def play(
    trace: Sequence[Arrival], model: str, workers: Sequence[Worker], pods: dict[str, Pod]
) -> Outcome:
    """The trace in real time through these workers; `pods` by address. Ends when all requests have."""
    outcome = Outcome()
    start = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for at, arrival in enumerate(trace):
            delay = start + arrival.at_s - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            worker = workers[at % len(workers)]
            tasks.create_task(_request(arrival, model, worker, pods, outcome, start))
    return outcome


async def _request(
    arrival: Arrival, model: str, worker: Worker, pods: dict[str, Pod], outcome: Outcome, start: float
) -> None:
    asked = time.monotonic()
    placed = await worker.place(model, arrival.messages)
    outcome.lookups.append(time.monotonic() - asked)
    address = placed.addresses[0]
    served = pods[address].serve(arrival.at_s, arrival.messages, arrival.answer_tokens)
    outcome.served.append(served)
    outcome.by_pod[address] += 1
    await asyncio.sleep(max(0.0, start + served.done_s - time.monotonic()))
    await worker.report(placed, served, arrival.answer_tokens)
