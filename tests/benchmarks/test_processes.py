import os
import subprocess
import sys
import time

from benchmarks.processes import descendants


def test_descendants_are_found_through_generations() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()  # grandchild'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as child:
        deadline = time.monotonic() + 20
        while not any("grandchild" in c for p, c in descendants(os.getpid()).items() if p != child.pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert child.pid in descendants(os.getpid())
        child.communicate(b"\n")
