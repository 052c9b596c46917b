import json

import pytest

from benchmarks.schedule.report import (
    Decisions,
    LagRow,
    MemoryRow,
    decision_row,
    quantile,
    tables,
    write_json,
)
from benchmarks.schedule.stalls import Held

MEASURED = Decisions("exact", 2000, 64, 10_000, 2, 1_000_000)
MEASURED.passes = [[0.001] * 10, [0.002] * 10, [0.009] * 9 + [0.1]]
MEASURED.held = Held(0.0062, 3, 0.02)


def test_a_row_has_the_medians_of_the_passes():
    row = decision_row(MEASURED)
    assert (row.p50_us, row.p99_us) == (2000, 2000)
    assert (row.prompt_bytes, row.decisions) == (128_000, 30)
    assert (row.stall_ms, row.stalls, row.late_ms) == (6.2, 3, 20)


def test_json_names_the_kind_of_each_row(tmp_path):
    rows = [decision_row(MEASURED), MemoryRow("kv", 64, 1000, 123.4)]
    write_json(rows, tmp_path / "rows.json")
    written = json.loads((tmp_path / "rows.json").read_text())
    assert [row["case"] for row in written] == ["decision", "memory"]
    assert {"prompt_bytes", "blocks", "pods", "index_entries", "p50_us", "p99_us"} <= written[0].keys()


def test_each_kind_has_a_table():
    lag = LagRow("blocks", 4, 100, 10_000, 1.5, 2.25, 130.0)
    told = tables([MemoryRow("kv", 64, 1_000_000, 123.4), lag, MemoryRow("kv", 4, 1, 99.4)])
    memory, lags = told.split("\n\n")
    assert len(memory.splitlines()) == 4
    assert lags.splitlines()[-1] == "| blocks | 4 | 100 | 10,000 | 1.5 | 2.25 | 130 |"


@pytest.mark.parametrize(("q", "value"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_quantiles(q, value):
    assert quantile([4, 1, 3, 2], q) == value
