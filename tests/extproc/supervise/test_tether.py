import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from extproc.supervise import tether
from extproc.supervise.tether import python, tethered


def run(*argv):
    return subprocess.run(tethered(argv), capture_output=True, text=True, timeout=30)


def eventually(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid):
    """No such process, or only its entry is left for its parent to read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_command_runs_with_its_arguments_and_status():
    done = run("/bin/sh", "-c", 'echo "$1"; exit 7', "sh", "a b")

    assert (done.stdout, done.returncode) == ("a b\n", 7)


def test_a_command_that_does_not_exist_is_named():
    done = run("/nowhere/at-all")

    assert done.returncode == 1
    assert done.stderr == "cannot run /nowhere/at-all: No such file or directory\n"


def test_signals_that_python_ignores_are_not_ignored_by_the_command():
    done = run("/bin/grep", "SigIgn", "/proc/self/status")

    ignored = int(done.stdout.split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))
    assert not ignored & (1 << (signal.SIGXFSZ - 1))


def test_a_command_whose_parent_is_gone_already_is_not_started():
    argv = (*tethered(())[:4], "1", "/bin/echo", "started")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)

    assert (done.stdout, done.returncode) == ("", 1)


@pytest.mark.parametrize("ignores", ["", "trap '' TERM INT HUP; "])
def test_the_command_dies_when_its_parent_is_killed(ignores):
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "from extproc.supervise.tether import tethered\n"
            "child = subprocess.Popen(tethered(('/bin/sh', '-c', sys.argv[1])), start_new_session=True)\n"
            "child.wait()",
            f"{ignores}echo $$; while :; do sleep 1; done",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        child = int(parent.stdout.readline())
        parent.kill()
        eventually(lambda: gone(child))


def test_python_does_not_import_from_the_working_directory(tmp_path):
    (tmp_path / "click.py").write_text("raise SystemExit('the wrong module')")

    done = subprocess.run(python("-c", "import click"), cwd=tmp_path, capture_output=True, timeout=30)

    assert done.returncode == 0


def test_the_script_needs_nothing_but_the_standard_library():
    assert os.path.samefile(tethered(())[3], tether.__file__)
    done = subprocess.run([*tethered(())[:3], "-c", "import sys; print(sys.path)"], capture_output=True)
    assert b"site-packages" not in done.stdout
