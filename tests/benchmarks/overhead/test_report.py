import json
from pathlib import Path

import pytest

from benchmarks.overhead.load import Tally
from benchmarks.overhead.report import Measurement, quantile, rows, table, write_json

MEASURED = [
    Measurement("envoy", 1000, Tally([0.01] * 1000, 2.0), 0.0, 0.2, Tally([0.001, 0.002, 0.003], 1.0)),
    Measurement("envoy+kvoy", 1000, Tally([0.01] * 500, 2.0), 0.4, 0.25, Tally([0.002, 0.004, 0.006], 1.0)),
]


def test_rows_hold_rates_and_cpu_per_request() -> None:
    base, kvoy = rows(MEASURED)

    assert (base.requests_per_s, base.envoy_cpu_us, base.service_cpu_us) == (500.0, 200.0, 0.0)
    assert (kvoy.requests_per_s, kvoy.envoy_cpu_us, kvoy.service_cpu_us) == (250.0, 500.0, 800.0)


def test_added_latency_is_against_envoy_alone() -> None:
    base, kvoy = rows(MEASURED)

    assert (base.added_p50_ms, base.added_p99_ms) == (0.0, 0.0)
    assert (kvoy.p50_ms, kvoy.added_p50_ms, kvoy.added_p99_ms) == (4.0, 2.0, 3.0)


def test_json_and_table_carry_the_same_rows(tmp_path: Path) -> None:
    measured = rows(MEASURED)
    write_json(measured, tmp_path / "out.json")

    written = json.loads((tmp_path / "out.json").read_text())

    assert [set(row) for row in written] == [
        {
            "mode", "body_bytes", "requests_per_s", "service_cpu_us", "envoy_cpu_us",
            "p50_ms", "p99_ms", "added_p50_ms", "added_p99_ms",
        }
    ] * 2  # fmt: skip
    assert len(table(measured).splitlines()) == 4


@pytest.mark.parametrize(("q", "value"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_quantiles(q: float, value: float) -> None:
    assert quantile([4, 1, 3, 2], q) == value
