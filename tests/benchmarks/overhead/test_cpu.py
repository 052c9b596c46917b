import os
import subprocess
import sys
import time

import pytest

from benchmarks.overhead.cpu import cpu_s


def test_work_is_seen() -> None:
    before, mark = cpu_s(os.getpid()), time.process_time()
    while time.process_time() - mark < 0.2:
        pass

    assert cpu_s(os.getpid()) - before >= 0.1


def test_a_process_that_is_gone_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()

    with pytest.raises(FileNotFoundError):
        cpu_s(child.pid)
