import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli import bootstrap, controller

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"


def invoke(command, *args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


class TestCheck:
    def test_valid_manifests(self):
        result = invoke(controller, "--check", "-f", QUICKSTART)

        assert result.exit_code == 0
        assert result.output == f"{QUICKSTART}: valid: 1 ModelRoute, 2 ModelServer, 3 Pod\n"

    def test_every_problem_is_a_line(self, tmp_path):
        (tmp_path / "a.yaml").write_text("a: [")
        (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {}\n")

        result = invoke(controller, "--check", "-f", tmp_path)

        assert result.exit_code == 1
        first, second = result.stdout.splitlines()
        assert first.startswith("a.yaml: is not valid YAML: ")
        assert second == "b.yaml: Pod (document 1): metadata.name: this required field is missing"

    def test_an_empty_directory_is_valid(self, tmp_path):
        assert invoke(controller, "--check", "-f", tmp_path).output == f"{tmp_path}: valid: no objects\n"

    def test_skipped_kinds_are_no_problem(self, tmp_path):
        (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Service\n")

        result = invoke(controller, "--check", "-f", tmp_path)

        assert result.exit_code == 0
        assert result.stderr == "skipped, as kvoy does not read these kinds: 1 Service (v1)\n"

    def test_notes_are_no_problem(self, tmp_path):
        (tmp_path / "a.yaml").write_text(
            "apiVersion: networking.serving.volcano.sh/v1alpha1\nkind: ModelServer\nmetadata: {name: pool}\n"
            "spec: {inferenceEngine: vLLM, workloadPort: {port: 1}, kvConnector: {type: nixl},\n"
            "  workloadSelector: {matchLabels: {app: pool}}}\n"
        )

        result = invoke(controller, "--check", "-f", tmp_path)

        assert result.exit_code == 0
        assert result.stderr == (
            "spec.kvConnector of ModelServer default/pool has no effect without "
            "spec.workloadSelector.pdGroup\n"
        )

    def test_a_directory_that_is_missing(self, tmp_path):
        result = invoke(controller, "--check", "-f", tmp_path / "none")

        assert result.exit_code == 2
        assert "none' does not exist" in result.output


GOOD = {
    "-f": QUICKSTART,
    "--redis": "redis://localhost:1",
    "--xds-socket": "/tmp/kvoy-never.sock",
    "--extproc": "extproc-0=/tmp/e.sock",
}


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--redis", "localhost:6379", "is no Redis URL"),
        ("--redis", "redis://localhost?timeout=3", "has an option that is none of"),
        ("--listen", "8080", "is not HOST:PORT"),
        ("--listen", "::1:8080", "is not HOST:PORT"),
        ("--listen", "localhost:8080", "localhost is no IP address: write 127.0.0.1 or ::1"),
        ("--group", "{x}", "is no group"),
        ("--group", "a/b", "is no group"),
        ("--xds-socket", "/nowhere/x.sock", "/nowhere is not a directory"),
        ("--extproc", "extproc-0", "is not NAME=SOCKET"),
        ("--extproc", "extproc-0=/tmp/" + "x" * 100, "is longer than the 100 bytes"),
        ("--body-limit", "16MB", "write it as in 16MiB"),
    ],
)
def test_an_option_that_makes_no_sense_is_named_before_anything_starts(option, value, reason):
    args = [part for pair in {**GOOD, option: value}.items() for part in pair]

    result = invoke(controller, *args)

    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output
    assert reason in " ".join(result.output.split())


@pytest.mark.parametrize("flags", [(), ("--decision-header",)])
def test_the_flag_for_telling_decisions_becomes_a_setting(monkeypatch, flags):
    seen = []

    async def run(settings):
        seen.append(settings)

    monkeypatch.setattr("controller.app.run", run)
    monkeypatch.setattr("controller.app.configure_logging", lambda: None)
    result = invoke(controller, *(part for pair in GOOD.items() for part in pair), *flags)

    assert result.exit_code == 0, result.output
    assert [settings.decision_header for settings in seen] == [bool(flags)]


@pytest.mark.parametrize("missing", ["--redis", "--xds-socket", "--extproc"])
def test_what_is_needed_to_run(missing):
    args = [part for option, value in GOOD.items() if option != missing for part in (option, value)]

    result = invoke(controller, *args)

    assert result.exit_code == 2
    assert "--redis, --xds-socket and at least one --extproc are needed" in result.output


def test_the_bootstrap_is_printed_as_json():
    result = invoke(bootstrap, "--xds-socket", "/run/x.sock", "--node-id", "n", "--admin", "unix:/run/a.sock")

    assert result.exit_code == 0
    written = json.loads(result.stdout)
    assert written["node"]["id"] == "n"
    assert "/run/x.sock" in result.stdout
    assert "/run/a.sock" in result.stdout


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--admin", "9901"),
        ("--admin", "localhost:9901"),
        ("--admin", "unix:/tmp/" + "x" * 100),
        ("--xds-socket", "/tmp/" + "x" * 100),
    ],
)
def test_a_bootstrap_with_which_envoy_would_not_start_is_not_printed(option, value):
    given = {"--xds-socket": "/run/x.sock", option: value}
    result = invoke(bootstrap, *(part for pair in given.items() for part in pair))

    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


def test_a_relative_socket_in_the_bootstrap_is_told_from_the_root(monkeypatch):
    monkeypatch.chdir("/tmp")

    assert '"/tmp/x.sock"' in invoke(bootstrap, "--xds-socket", "x.sock").stdout


def test_help_is_fast_because_it_imports_only_click():
    heavy = ("grpc", "redis", "yaml", "msgspec", "envoy_data_plane")
    check = f"import sys, controller.cli; print([name for name in {heavy} if name in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert printed.stdout == "[]\n"


@pytest.mark.parametrize("command", [controller, bootstrap])
def test_help_shows_an_example(command):
    assert "Example" in invoke(command, "--help").output
