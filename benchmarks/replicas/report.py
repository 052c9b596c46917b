"""What came of the traces -> rows, a table for people, JSON for programs."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.replicas.play import Outcome


class Row(msgspec.Struct, frozen=True):
    """One trace through one number of workers by one policy."""

    policy: str
    workers: int
    requests: int
    hit_rate: float
    """Share of all prompt tokens that were in a cache."""
    ttft_p50_ms: float
    ttft_p90_ms: float
    busiest_share: float
    """Of all requests, those of the pod that got most."""
    burst_max: float
    """Of 16 equal prompts at once, how many the busiest pod got; mean of the bursts."""
    decision_p50_ms: float
    """From asking a worker to its answer, both ends of the socket included."""


def row(policy: str, workers: int, outcome: Outcome, bursts: Sequence[Outcome]) -> Row:
    """The row of one trace and its bursts."""
    requests = len(outcome.served)
    busiest = [max(burst.by_pod.values()) for burst in bursts]
    return Row(
        policy=policy,
        workers=workers,
        requests=requests,
        hit_rate=round(outcome.hit_rate, 4),
        ttft_p50_ms=round(outcome.ttft_s(0.5) * 1e3, 1),
        ttft_p90_ms=round(outcome.ttft_s(0.9) * 1e3, 1),
        busiest_share=round(max(outcome.by_pod.values()) / requests, 3),
        burst_max=round(sum(busiest) / len(busiest), 2) if busiest else 0.0,
        decision_p50_ms=round(sorted(outcome.lookups)[requests // 2] * 1e3, 2),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| policy | workers | requests | hit rate | TTFT p50 ms | p90 ms | busiest pod | of a burst of 16 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.policy} | {r.workers} | {r.requests:,} | {r.hit_rate:.1%} | {r.ttft_p50_ms:.1f} "
        f"| {r.ttft_p90_ms:.1f} | {r.busiest_share:.1%} | {r.burst_max:.1f} |"
        for r in rows
    ]
    return "\n".join(lines)


def write_json(rows: Sequence[Row], file: Path) -> None:
    """The rows as a JSON array."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
