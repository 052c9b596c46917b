import json
from collections import Counter

from benchmarks.replicas.play import Outcome
from benchmarks.replicas.pods import Served
from benchmarks.replicas.report import row, table, write_json

OUTCOME = Outcome(
    [Served(100, 50 * (at % 2), at / 1000, 1.0) for at in range(10)], Counter(a=7, b=3), [0.001] * 10
)
BURST = Outcome([Served(100, 0, 0.1, 1.0)] * 16, Counter(a=3, b=2, c=11))


def test_a_row_says_what_came_of_a_trace():
    found = row("lmetric", 4, OUTCOME, [BURST, Outcome(by_pod=Counter(a=4))])

    assert (found.policy, found.workers, found.requests) == ("lmetric", 4, 10)
    assert found.hit_rate == 0.25
    assert (found.ttft_p50_ms, found.ttft_p90_ms) == (5.0, 9.0)
    assert found.busiest_share == 0.7
    assert found.burst_max == 7.5
    assert found.decision_p50_ms == 1.0


def test_rows_become_a_table_and_a_file(tmp_path):
    rows = [row("lmetric", count, OUTCOME, []) for count in (1, 2)]

    lines = table(rows).splitlines()
    assert len(lines) == 4
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    write_json(rows, tmp_path / "rows.json")
    assert [each["workers"] for each in json.loads((tmp_path / "rows.json").read_text())] == [1, 2]
