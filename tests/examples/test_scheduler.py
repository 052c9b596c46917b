"""The scheduler example, as `kvoy controller --check` reads it and as it would be published."""

from pathlib import Path

from click.testing import CliRunner

from controller.cli import controller
from controller.follow import compile_tree
from controller.manifests.reader import Reader
from controller.source import Directory
from extproc.schedule.scheduler import Scheduler
from extproc.state import records

EXAMPLE = Path(__file__).parents[2] / "examples" / "scheduler"


def test_the_controller_accepts_it():
    done = CliRunner().invoke(controller, ["--check", "-f", str(EXAMPLE)])

    assert (done.exit_code, done.output) == (0, f"{EXAMPLE}: valid: 1 ModelServer, 1 Scheduler\n")


def test_the_server_goes_its_own_way():
    found = compile_tree(Reader(), Directory(EXAMPLE).read()).records.values()
    (common,) = [record for record in found if isinstance(record, records.Scheduler)]
    (server,) = [record for record in found if isinstance(record, records.ModelServer)]

    assert [plugin.name for plugin in common.profile.screens] == ["least-request"]
    assert [plugin.name for plugin in common.profile.scorers] == [
        "least-request",
        "gpu-usage",
        "least-latency",
        "prefix-cache",
    ]
    assert not Scheduler.of(common.profile).wants_exact
    assert server.profile is not None
    assert [plugin.name for plugin in server.profile.screens] == ["least-request", "lora-affinity"]
    assert Scheduler.of(server.profile).wants_exact
