"""Measurements -> rows, tables for people, JSON for programs."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.handoff.added import ALONE, Measured
from benchmarks.handoff.play import Played
from benchmarks.overhead.report import quantile


class AddedRow(msgspec.Struct, frozen=True, tag_field="case", tag="added"):
    """One way to an answer's first byte, without the time that the prompt takes.

    `added_*` is against ``alone`` at the same size and load, 0 for itself.
    """

    mode: str
    """A connector, or ``alone``: one engine does both."""
    body_bytes: int
    at_a_time: int
    requests: int
    service_cpu_us: float
    """CPU time of the worker per request, as of Envoy."""
    envoy_cpu_us: float
    p50_ms: float
    p99_ms: float
    added_p50_ms: float
    added_p99_ms: float


class FleetRow(msgspec.Struct, frozen=True, tag_field="case", tag="fleet"):
    """What four simulated GPUs made of one load."""

    load: str
    gpus: str
    requests: int
    ttft_p50_ms: float
    ttft_p90_ms: float
    itl_p50_ms: float
    itl_p99_ms: float
    duration_p50_s: float
    duration_p90_s: float
    tokens_per_s: float
    """Of answers."""


def added_rows(measured: Sequence[Measured]) -> list[AddedRow]:
    """One row per measurement, in the same order."""
    base = {(each.body_bytes, each.load): each for each in measured if each.mode == ALONE}
    return [_added_row(each, base[each.body_bytes, each.load]) for each in measured]


def fleet_row(played: Played) -> FleetRow:
    """The row of one fleet under one load."""
    first = [answer.ttft_s * 1e3 for answer in played.answers]
    gaps = [gap * 1e3 for answer in played.answers for gap in answer.gaps_s]
    whole = [answer.duration_s for answer in played.answers]
    return FleetRow(
        load=played.load.text,
        gpus=played.fleet.text,
        requests=len(played.answers),
        ttft_p50_ms=round(quantile(first, 0.5), 1),
        ttft_p90_ms=round(quantile(first, 0.9), 1),
        itl_p50_ms=round(quantile(gaps, 0.5), 2),
        itl_p99_ms=round(quantile(gaps, 0.99), 2),
        duration_p50_s=round(quantile(whole, 0.5), 2),
        duration_p90_s=round(quantile(whole, 0.9), 2),
        tokens_per_s=round(played.tokens_per_s, 1),
    )


def added_table(rows: Sequence[AddedRow]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| connector | body | at a time | requests | service µs/req | Envoy µs/req "
        "| p50 ms | p99 ms | +p50 ms | +p99 ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.mode} | {r.body_bytes:,} | {r.at_a_time} | {r.requests:,} "
        f"| {r.service_cpu_us:,.0f} | {r.envoy_cpu_us:,.0f} | {r.p50_ms:.2f} | {r.p99_ms:.2f} "
        f"| {r.added_p50_ms:+.2f} | {r.added_p99_ms:+.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def fleet_table(rows: Sequence[FleetRow]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| load | simulated GPUs | requests | TTFT p50 ms | p90 ms | ITL p50 ms | p99 ms "
        "| whole p50 s | p90 s | tokens/s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.load} | {r.gpus} | {r.requests:,} | {r.ttft_p50_ms:,.0f} | {r.ttft_p90_ms:,.0f} "
        f"| {r.itl_p50_ms:.1f} | {r.itl_p99_ms:.1f} | {r.duration_p50_s:.2f} | {r.duration_p90_s:.2f} "
        f"| {r.tokens_per_s:,.0f} |"
        for r in rows
    ]
    return "\n".join(lines)


def write_json(rows: Sequence[AddedRow | FleetRow], file: Path) -> None:
    """The rows as a JSON array; `case` says of what kind each is."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))


def _added_row(measured: Measured, base: Measured) -> AddedRow:
    requests = len(measured.seconds)
    p50, p99 = (quantile(measured.seconds, q) * 1e3 for q in (0.5, 0.99))
    base50, base99 = (quantile(base.seconds, q) * 1e3 for q in (0.5, 0.99))
    return AddedRow(
        mode=measured.mode,
        body_bytes=measured.body_bytes,
        at_a_time=measured.load.at_a_time,
        requests=requests,
        service_cpu_us=round(measured.service_cpu_s / requests * 1e6, 1),
        envoy_cpu_us=round(measured.envoy_cpu_s / requests * 1e6, 1),
        p50_ms=round(p50, 3),
        p99_ms=round(p99, 3),
        added_p50_ms=round(p50 - base50, 3),
        added_p99_ms=round(p99 - base99, 3),
    )
