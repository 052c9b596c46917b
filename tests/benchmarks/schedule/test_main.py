import json

import pytest
from click.testing import CliRunner

from benchmarks.schedule.__main__ import main

SMALL = ("--pods", "4", "--blocks", "8", "--entries", "100", "--seconds", "0.05", "--passes", "1")


@pytest.mark.parametrize(("case", "kinds"), [("decisions", ["decision"] * 2), ("tokenising", [])])
def test_a_case_is_measured_alone(tmp_path, case, kinds):
    file = tmp_path / "rows.json"
    result = CliRunner().invoke(main, ["--case", case, *SMALL, "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert [row["case"] for row in json.loads(file.read_text())] == kinds
    assert case in result.stderr


def test_a_soak_of_nothing_is_left_out():
    result = CliRunner().invoke(main, ["--case", "soak", "--soak", "0"])
    assert (result.exit_code, result.stderr) == (0, "")


def test_help_shows_examples():
    assert "make bench-schedule" in CliRunner().invoke(main, ["--help"]).output
