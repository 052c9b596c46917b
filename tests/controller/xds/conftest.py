"""Fixtures around the real Envoy."""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from extproc.state.records import ModelServer
from tests.controller.xds.mesh import Mesh, running_mesh


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A directory with a path short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="kvoy-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def start_mesh(run_dir: Path) -> Callable[..., AbstractAsyncContextManager[Mesh]]:
    """Starts a data path: see `mesh.running_mesh`."""

    def start(**options) -> AbstractAsyncContextManager[Mesh]:
        options.setdefault("server", ModelServer("ns", "s", "vLLM", 8000))
        return running_mesh(run_dir, **options)

    return start


@pytest.fixture
async def mesh(start_mesh) -> AsyncIterator[Mesh]:
    """One engine, one worker."""
    async with start_mesh() as running:
        yield running
