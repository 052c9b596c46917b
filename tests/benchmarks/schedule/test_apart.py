import asyncio
import os

import pytest

from benchmarks.schedule.apart import Apart, apart


def its_pid(_line, add):
    return os.getpid() + add


def fails(_line):
    raise ValueError("on purpose")


def waits(line):
    asyncio.run(line.ready())
    return "went on"


def test_it_runs_in_another_process():
    assert apart(its_pid, 0) != os.getpid()


def test_a_failure_is_told(capfd):
    with pytest.raises(RuntimeError, match="stderr says why"):
        apart(fails)
    assert "on purpose" in capfd.readouterr().err


def test_it_waits_until_it_is_told():
    with Apart(waits) as process:
        process.ready()
        process.tell()
        assert process.result() == "went on"


def test_nothing_outlives_the_block(capfd):
    with Apart(waits) as process:
        process.ready()
        pid = process._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "EOFError" in capfd.readouterr().err, "it noticed that nobody is there any more"
