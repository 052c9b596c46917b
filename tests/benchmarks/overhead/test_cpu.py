import os
import subprocess
import sys
import time

import pytest

from benchmarks.overhead.cpu import cpu_s, descendants


def test_work_is_seen() -> None:
    before, mark = cpu_s(os.getpid()), time.process_time()
    while time.process_time() - mark < 0.2:
        pass

    assert cpu_s(os.getpid()) - before >= 0.1


def test_descendants_are_found_through_generations() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()  # grandchild'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as child:
        deadline = time.monotonic() + 20
        while not any("grandchild" in c for p, c in descendants(os.getpid()).items() if p != child.pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert child.pid in descendants(os.getpid())
        child.communicate(b"\n")


def test_a_process_that_is_gone_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()

    with pytest.raises(FileNotFoundError):
        cpu_s(child.pid)
