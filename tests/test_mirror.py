"""Each module has a test file of its own, in the same place under tests/; each test file has its module."""

from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("extproc", "controller", "benchmarks")
WITHOUT_TESTS = ("__init__.py", "__main__.py")
"""Maps and entry points: what they start is tested where it is."""
WITHOUT_MODULE = ("tests/envoy/", "tests/examples/", "tests/real/")
"""Tests of all parts together."""


def mirror_of(module: PurePath) -> PurePath:
    return PurePath("tests", module.parent, f"test_{module.name}")


def modules():
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            if file.name not in WITHOUT_TESTS:
                yield PurePath(file.relative_to(ROOT))


def mirrors():
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        found = PurePath(file.relative_to(ROOT))
        if len(found.parts) > 2 and not str(found).startswith(WITHOUT_MODULE):
            yield found


@pytest.mark.parametrize("module", list(modules()), ids=str)
def test_a_module_has_its_test_file(module):
    assert (ROOT / mirror_of(module)).is_file(), f"{module} needs {mirror_of(module)}"


def test_no_test_file_is_without_its_module():
    wanted = {mirror_of(module) for module in modules()}
    wanted |= {
        mirror_of(main.relative_to(ROOT).with_name("main.py")) for main in ROOT.glob("*/**/__main__.py")
    }

    assert [str(file) for file in mirrors() if file not in wanted] == []


def test_tests_are_no_packages():
    """An __init__.py there breaks the import of the package that the tests mirror."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []
