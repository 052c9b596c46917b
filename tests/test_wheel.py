"""The wheel holds all that the services read, and runs without the checkout."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytest.importorskip("hatchling", reason="builds the wheel")

ROOT = Path(__file__).parents[1]
PACKAGES = ("extproc", "controller")


def pip(*args: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.iterdir()
    return built


def test_the_wheel_holds_both_packages_whole_and_nothing_else(wheel):
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}

    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file())
    assert held == {str(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts}
    scripts = {f"extproc/state/store/scripts/{name}.lua" for name in ("append", "load", "publish")}
    typed = {f"{package}/py.typed" for package in PACKAGES}
    assert scripts | typed | {"controller/xds/usage.lua"} <= held


def test_the_command_runs_from_the_wheel(wheel, tmp_path):
    pip("install", "--no-deps", "--no-index", "--target", str(tmp_path), str(wheel))
    where = "import controller, extproc; print(controller.__file__, extproc.__file__)"

    def said(*command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert all(file.startswith(f"{tmp_path}/") for file in said(sys.executable, "-c", where).split())
    text = said(f"{tmp_path}/bin/kvoy", "--help")
    assert all(f"\n  {verb} " in text for verb in ("bootstrap", "controller", "extproc", "up"))
    assert "not installed" not in text
