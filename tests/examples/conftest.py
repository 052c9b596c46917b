"""A demo as a user runs it, on loopback addresses of its own."""

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Demo = Callable[[Path], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def manifests(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The example that the test module calls EXAMPLE, with engines on addresses that no other demo uses."""
    network = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}"
    for file in request.module.EXAMPLE.glob("*.yaml"):
        text = re.sub(r"podIP: 127\.0\.0\.(\d+)", rf"podIP: {network}.\1", file.read_text())
        (tmp_path / file.name).write_text(text)
    return tmp_path


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Where a demo puts its temporary files."""
    place = Path(f"/tmp/kvoy-demo-{os.getpid()}")
    place.mkdir()
    yield place
    shutil.rmtree(place)


@pytest.fixture
def demo(request: pytest.FixtureRequest, scratch: Path) -> Demo:
    """Runs the demo of EXAMPLE on a directory."""

    def run(directory: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, str(request.module.EXAMPLE / "demo.py"), str(directory)],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "TMPDIR": str(scratch)},
        )

    return run
