from pathlib import Path

import pytest

from benchmarks.stack import NotStarted, kvoy_up

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"


async def test_a_stack_runs_for_the_length_of_the_block() -> None:
    async with kvoy_up(QUICKSTART, "--workers", "1") as stack:
        assert len(stack.admins) == 1
        assert len(stack.pids("-m extproc --name")) == 1
        assert "kvoy is ready" in stack.log
        running = list(stack.processes())

    assert running
    assert not any(Path(f"/proc/{pid}").exists() for pid in running)


async def test_a_stack_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match="nowhere"):
        async with kvoy_up(tmp_path / "nowhere"):
            pass
