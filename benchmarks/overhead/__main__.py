"""``python -m benchmarks.overhead``: the same load through Envoy alone and through Envoy with kvoy."""

import asyncio
import json
from pathlib import Path

import click
import uvloop

from benchmarks.overhead.cpu import cpu_s
from benchmarks.overhead.load import Tally, closed_loop, fixed_rate
from benchmarks.overhead.report import Measurement, rows, table, write_json
from benchmarks.overhead.targets import Target, an_engine, envoy_alone, envoy_with_kvoy


def chat_body(size: int) -> bytes:
    """A chat request of exactly `size` bytes (at least 120) in one user message."""
    message = {"role": "user", "content": ""}
    empty = json.dumps({"model": "bench", "messages": [message], "max_tokens": 16}).encode()
    message["content"] = "word " * (size // 5 + 1)
    message["content"] = message["content"][: size - len(empty)]
    return json.dumps({"model": "bench", "messages": [message], "max_tokens": 16}).encode()


async def measure(target: Target, size: int, rate: float, connections: int, seconds: float) -> Measurement:
    """Full speed with CPU times, then the fixed rate."""
    body = chat_body(size)
    await closed_loop(target.host, target.port, body, connections=connections, seconds=min(1.0, seconds))
    service, envoy = _cpu(target.service_pids), _cpu(target.envoy_pids)
    full = await closed_loop(target.host, target.port, body, connections=connections, seconds=seconds)
    service, envoy = _cpu(target.service_pids) - service, _cpu(target.envoy_pids) - envoy
    steady = await fixed_rate(target.host, target.port, body, rate=rate, seconds=seconds)
    return Measurement(target.mode, size, full, service, envoy, steady)


def _cpu(pids: tuple[int, ...]) -> float:
    return sum(cpu_s(pid) for pid in pids)


def merged(first: Measurement, second: Measurement) -> Measurement:
    """Two passes of the same measurement as one."""
    return Measurement(
        first.mode,
        first.body_bytes,
        _joined(first.full_speed, second.full_speed),
        first.service_cpu_s + second.service_cpu_s,
        first.envoy_cpu_s + second.envoy_cpu_s,
        _joined(first.steady, second.steady),
    )


def _joined(first: Tally, second: Tally) -> Tally:
    return Tally(first.latencies + second.latencies, first.seconds + second.seconds)


async def run(
    sizes: tuple[int, ...], rate: float, connections: int, seconds: float, passes: int, workers: int
) -> list[Measurement]:
    """All measurements; the two modes take turns, so that a noisy neighbour meets both."""
    found: dict[tuple[int, str], Measurement] = {}
    async with an_engine() as engine, envoy_alone(engine) as plain, envoy_with_kvoy(engine, workers) as kvoy:
        for number in range(passes):
            for size in sizes:
                for target in (plain, kvoy):
                    click.echo(f"pass {number + 1}/{passes}: {target.mode}, {size:,} bytes", err=True)
                    measured = await measure(target, size, rate, connections, seconds)
                    key = (size, target.mode)
                    found[key] = merged(found[key], measured) if key in found else measured
    return list(found.values())


@click.command(name="python -m benchmarks.overhead")
@click.option("--body", "sizes", multiple=True, type=click.IntRange(min=120),
              default=(1_000, 32_000, 400_000), show_default=True,
              help="Body size in bytes; repeat for several.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(min=1), default=100.0, show_default=True,
              help="Requests per second of the latency measurement.")  # fmt: skip
@click.option("--connections", type=click.IntRange(min=1), default=32, show_default=True,
              help="Connections of the full-speed measurement.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0.1), default=4.0, show_default=True,
              help="Length of each measurement.")  # fmt: skip
@click.option("--passes", type=click.IntRange(min=1), default=2, show_default=True,
              help="How often everything is measured.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="ext_proc workers.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the rows to this file too.")  # fmt: skip
def main(
    sizes: tuple[int, ...],
    rate: float,
    connections: int,
    seconds: float,
    passes: int,
    workers: int,
    json_file: Path | None,
) -> None:
    """Measure what kvoy adds to Envoy: requests per second, CPU per request, latency.

    \b
    Examples:
      python -m benchmarks.overhead
      python -m benchmarks.overhead --body 1000 --seconds 10 --json overhead.json
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = rows(runner.run(run(sizes, rate, connections, seconds, passes, workers)))
    click.echo(table(report))
    if json_file is not None:
        write_json(report, json_file)


if __name__ == "__main__":
    main()
