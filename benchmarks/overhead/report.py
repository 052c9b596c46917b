"""Measurements -> rows, a table for people, JSON for programs."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.overhead.load import Tally


@dataclass(frozen=True, slots=True)
class Measurement:
    """One mode at one body size: a closed loop at full speed and a fixed moderate rate."""

    mode: str
    """``envoy`` or ``envoy+kvoy``."""
    body_bytes: int
    full_speed: Tally
    service_cpu_s: float
    """CPU of the ext_proc workers during the closed loop."""
    envoy_cpu_s: float
    steady: Tally


class Row(msgspec.Struct, frozen=True):
    """A line of the report. `added_*` is against ``envoy`` at the same body size, 0 for itself."""

    mode: str
    body_bytes: int
    requests_per_s: float
    service_cpu_us: float
    envoy_cpu_us: float
    p50_ms: float
    p99_ms: float
    added_p50_ms: float
    added_p99_ms: float


def quantile(values: list[float], q: float) -> float:
    """The value below which the share `q` (0 to 1) of the values lies; nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def rows(measurements: list[Measurement]) -> list[Row]:
    """One row per measurement, in the same order."""
    base = {m.body_bytes: m for m in measurements if m.mode == "envoy"}
    return [_row(m, base[m.body_bytes]) for m in measurements]


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| mode | body | req/s | service µs/req | Envoy µs/req | p50 ms | p99 ms | +p50 ms | +p99 ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.mode} | {r.body_bytes:,} | {r.requests_per_s:,.0f} | {r.service_cpu_us:,.0f} "
        f"| {r.envoy_cpu_us:,.0f} | {r.p50_ms:.2f} | {r.p99_ms:.2f} "
        f"| {r.added_p50_ms:+.2f} | {r.added_p99_ms:+.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def write_json(rows: list[Row], file: Path) -> None:
    """The rows as a JSON array."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))


def _row(measured: Measurement, base: Measurement) -> Row:
    requests = len(measured.full_speed.latencies)
    p50, p99 = (quantile(measured.steady.latencies, q) * 1e3 for q in (0.5, 0.99))
    base50, base99 = (quantile(base.steady.latencies, q) * 1e3 for q in (0.5, 0.99))
    return Row(
        mode=measured.mode,
        body_bytes=measured.body_bytes,
        requests_per_s=round(measured.full_speed.rate, 1),
        service_cpu_us=round(measured.service_cpu_s / requests * 1e6, 1),
        envoy_cpu_us=round(measured.envoy_cpu_s / requests * 1e6, 1),
        p50_ms=round(p50, 3),
        p99_ms=round(p99, 3),
        added_p50_ms=round(p50 - base50, 3),
        added_p99_ms=round(p99 - base99, 3),
    )
