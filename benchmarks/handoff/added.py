"""What a hand-off adds to a request: the same load by each connector, and to an engine that does both."""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks.handoff.backend import CONNECTORS, Ports
from benchmarks.handoff.pods import Pod, manifests
from benchmarks.overhead.cpu import cpu_s
from benchmarks.overhead.load import Tally, closed_loop
from benchmarks.stack import Stack, kvoy_up

ALONE = "alone"
"""An engine that does both."""
MODES = (ALONE, *CONNECTORS)
_WARM_UP_S = 0.4
_PASSES = 3


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests are under way."""

    at_a_time: int
    """Clients, each of which sends its next request when its last one is answered."""
    prefill_ms: int


LOADS = (Load(1, 20), Load(16, 160))
"""Prompts of many clients take so long that the machine is not busy."""


@dataclass(slots=True)
class Measured:
    """One mode at one body size under one load."""

    mode: str
    body_bytes: int
    load: Load
    seconds: list[float] = field(default_factory=list)
    """Of each request, without its prompt's computation."""
    service_cpu_s: float = 0.0
    """CPU time of the worker."""
    envoy_cpu_s: float = 0.0


def chat_body(model: str, size: int, prefill_ms: int) -> bytes:
    """A chat request of exactly `size` bytes (at least 150) whose prompt takes so long."""

    def written(content: str) -> bytes:
        messages = [{"role": "user", "content": content}]
        return json.dumps({"model": model, "prefill_ms": prefill_ms, "messages": messages}).encode()

    return written(("word " * (size // 5 + 1))[: size - len(written(""))])


@asynccontextmanager
async def gateway() -> AsyncIterator[Stack]:
    """One worker, the engine that does both, and a pair for each connector; models are called like modes."""
    async with backend() as ports:
        with tempfile.TemporaryDirectory(prefix="kvoy-bench-") as folder:
            (Path(folder) / "bench.yaml").write_text(yaml.safe_dump_all(_manifests(ports)))
            async with kvoy_up(Path(folder), "--workers", "1") as stack:
                yield stack


@asynccontextmanager
async def backend() -> AsyncIterator[Ports]:
    """The engines, in a process of their own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.handoff.backend"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield msgspec.json.decode(await process.stdout.readline(), type=Ports)
    finally:
        process.kill()
        await process.wait()


async def measure(stack: Stack, sizes: Sequence[int], seconds: float) -> AsyncIterator[Measured]:
    """Everything, through a `gateway`; the modes take turns, so that a noisy neighbour meets all."""
    at = _Gateway(stack.url, stack.pids("-m extproc "), stack.pids("--disable-hot-restart"))
    for size in sizes:
        for load in LOADS:
            for mode in MODES:
                await at.go_on(Measured(mode, size, load), min(_WARM_UP_S, seconds))
            found = [Measured(mode, size, load) for mode in MODES]
            for _ in range(_PASSES):
                for measured in found:
                    await at.go_on(measured, seconds / _PASSES)
            for measured in found:
                yield measured


@dataclass(frozen=True, slots=True)
class _Gateway:
    """What is measured: where to send requests, and whose processor time counts."""

    url: str
    service_pids: Sequence[int]
    envoy_pids: Sequence[int]

    async def go_on(self, measured: Measured, seconds: float) -> None:
        """Measure for some more seconds."""
        load = measured.load
        body = chat_body(measured.mode, measured.body_bytes, load.prefill_ms)
        service, envoy = _cpu_s(self.service_pids), _cpu_s(self.envoy_pids)
        latencies = await latencies_s(self.url, body, load, seconds)
        measured.seconds += [latency - load.prefill_ms / 1e3 for latency in latencies]
        measured.service_cpu_s += _cpu_s(self.service_pids) - service
        measured.envoy_cpu_s += _cpu_s(self.envoy_pids) - envoy


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(cpu_s(pid) for pid in pids)


async def latencies_s(url: str, body: bytes, load: Load, seconds: float) -> list[float]:
    """Of as many requests as fit in. Clients begin one after the other, or all would ask at once for ever."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    apart_s = load.prefill_ms / 1e3 / load.at_a_time

    async def client(number: int) -> Tally:
        await asyncio.sleep(number * apart_s)
        return await closed_loop(host, int(port), body, connections=1, seconds=seconds)

    async with asyncio.TaskGroup() as tasks:
        clients = [tasks.create_task(client(number)) for number in range(load.at_a_time)]
    return [latency for each in clients for latency in each.result().latencies]


def _manifests(ports: Ports) -> Iterator[dict[str, Any]]:
    yield from manifests(ALONE, [Pod("both", ports.both)], None)
    for connector in CONNECTORS:
        prefill, decode = ports.pairs[connector]
        pods = [
            Pod(f"{connector}-p", prefill, "prefill", prefill),
            Pod(f"{connector}-d", decode, "decode"),
        ]
        yield from manifests(connector, pods, connector)
