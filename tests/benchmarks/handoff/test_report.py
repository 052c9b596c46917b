import json
from pathlib import Path

from benchmarks.handoff.added import Load, Measured
from benchmarks.handoff.fleets import TOGETHER
from benchmarks.handoff.loads import Load as FleetLoad
from benchmarks.handoff.play import Answer, Played
from benchmarks.handoff.report import added_rows, added_table, fleet_row, fleet_table, write_json

ONE, MANY = Load(1, 20), Load(16, 160)
MEASURED = [
    Measured("alone", 1000, ONE, [0.001, 0.002, 0.003], 0.003, 0.006),
    Measured("nixl", 1000, ONE, [0.004, 0.006, 0.008], 0.009, 0.012),
    Measured("alone", 1000, MANY, [0.005], 0.001, 0.002),
    Measured("nixl", 1000, MANY, [0.006], 0.003, 0.004),
]
PLAYED = Played(
    TOGETHER,
    FleetLoad("some", 8, 3, (TOGETHER,), rate=1.0),
    [Answer(0.0, [0.5, 0.51, 0.53]), Answer(1.0, [1.1, 1.2, 1.4]), Answer(2.0, [2.3, 2.4, 2.5])],
    began=0.0,
    seconds=9.0,
)


def test_what_is_added_is_against_the_same_size_and_load() -> None:
    rows = added_rows(MEASURED)

    assert [(row.p50_ms, row.p99_ms) for row in rows] == [(2.0, 3.0), (6.0, 8.0), (5.0, 5.0), (6.0, 6.0)]
    assert [(row.added_p50_ms, row.added_p99_ms) for row in rows] == [(0, 0), (4, 5), (0, 0), (1, 1)]
    assert [(row.at_a_time, row.requests) for row in rows] == [(1, 3), (1, 3), (16, 1), (16, 1)]


def test_processor_time_is_per_request() -> None:
    assert [(row.service_cpu_us, row.envoy_cpu_us) for row in added_rows(MEASURED)] == [
        (1000, 2000),
        (3000, 4000),
        (1000, 2000),
        (3000, 4000),
    ]


def test_a_fleet_is_judged_by_first_tokens_gaps_and_whole_answers() -> None:
    row = fleet_row(PLAYED)

    assert (row.load, row.gpus, row.requests) == ("some: 8 + 3, 1/s", "4 together", 3)
    assert (row.ttft_p50_ms, row.ttft_p90_ms) == (300.0, 500.0)
    assert (row.itl_p50_ms, row.itl_p99_ms) == (100.0, 200.0)
    assert (row.duration_p50_s, row.duration_p90_s) == (0.5, 0.53)
    assert row.tokens_per_s == 1.0


def test_tables_have_a_line_per_row_and_as_many_cells() -> None:
    for table, rows in (
        (added_table(added_rows(MEASURED)), 4),
        (fleet_table([fleet_row(PLAYED)]), 1),
    ):
        lines = table.splitlines()
        assert len(lines) == 2 + rows
        assert len({line.count("|") for line in lines}) == 1


def test_json_says_of_what_kind_each_row_is(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    write_json([*added_rows(MEASURED), fleet_row(PLAYED)], file)

    assert [row["case"] for row in json.loads(file.read_text())] == ["added"] * 4 + ["fleet"]
