"""The tutorial in CONTRIBUTING.md, followed to the letter."""

import re
import sys
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from controller.manifests.scheduler import read_text
from extproc.schedule import catalogue
from extproc.schedule.placement import Placement
from extproc.schedule.scheduler import Scheduler
from extproc.schedule.testing import a_member, a_pool

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text().partition("## Add a scheduling plugin")[2]
PLUGIN, TEST, LINE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(CONFIGURATION,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tutorial's file, importable, and its line in the catalogue."""
    path = PLUGIN.splitlines()[0].removeprefix("# ").removesuffix(".py")
    module = ModuleType(path.replace("/", "."))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(PLUGIN, path, "exec"), module.__dict__)
    entries = eval("{" + LINE.strip() + "}", {"Entry": catalogue.Entry, **module.__dict__})
    for name, entry in entries.items():
        monkeypatch.setitem(catalogue.CATALOGUE, name, entry)  # type: ignore[arg-type]
    return module


@pytest.mark.usefixtures("plugin")
def test_its_test_passes() -> None:
    scope: dict[str, object] = {}
    exec(compile(TEST, TEST.splitlines()[0], "exec"), scope)
    tests = [value for name, value in scope.items() if name.startswith("test_")]

    assert len(tests) == 1
    for test in tests:
        assert callable(test)
        test()


@pytest.mark.usefixtures("plugin")
def test_its_configuration_is_taken_and_has_an_effect() -> None:
    view, faults = read_text(CONFIGURATION)
    assert (view is not None, faults) == (True, ())

    placement = Scheduler.of(view.scheduler.profile()).place(
        a_pool(a_member(pending=1000), a_member()), Random(1)
    )

    assert isinstance(placement, Placement)
    assert placement.chosen.endpoint.pod == "pod/default/1"
    loser = placement.explain()["candidates"][1]["scores"][0]
    assert (loser["scorer"], loser["score"], loser["raw"]) == ("short-queue", 0.5, "1000 tokens to compute")


@pytest.mark.usefixtures("plugin")
def test_a_misspelt_argument_is_found() -> None:
    _, faults = read_text(CONFIGURATION.replace("halfAt", "halfat"))

    assert [fault.field for fault in faults] == ["scheduler.pluginConfig[0].args.halfat"]


def test_it_is_no_part_of_kvoy() -> None:
    assert "short-queue" not in catalogue.CATALOGUE
