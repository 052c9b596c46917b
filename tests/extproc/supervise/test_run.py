import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from extproc.supervise import Child, Log, Probe, Supervisor

SECONDS = 30


class Watched:
    """A running supervisor and what its log has said so far."""

    def __init__(self, supervisor, announced, log_file):
        self.supervisor = supervisor
        self.announced = announced
        self._log_file = log_file
        self._last = None

    @property
    def said(self):
        return self._log_file.read_text() if self._last is None else self._last

    def freeze(self):
        """The log file goes away; keep what it says."""
        self._last = self.said

    def lines(self, name):
        found = (line.split("| ", 1) for line in self.said.splitlines())
        return [text for who, text in found if who.strip() == name]

    async def until(self, condition):
        async with asyncio.timeout(SECONDS):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def supervised(*children):
    """Run the children; at the end, stop them and wait until all are gone."""
    announced = asyncio.Event()
    with tempfile.NamedTemporaryFile() as log_file:
        with Log(log_file.fileno(), [child.name for child in children], colour=False) as log:
            supervisor = Supervisor(children, log, announced.set)
            watched = Watched(supervisor, announced, Path(log_file.name))
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(supervisor.run())
                try:
                    yield watched
                finally:
                    if not running.done():
                        supervisor.stop()
        watched.freeze()


def shell(name, script, **more):
    return Child(name, ("/bin/sh", "-c", script), **more)


def pid_of(watched, name="child"):
    return int(re.search(r"pid (\d+)", "\n".join(reversed(watched.lines(name)))).group(1))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_killed_child_is_named_and_restarted():
    async with supervised(shell("child", "echo pid $$; exec sleep 1000")) as watched:
        await watched.until(lambda: watched.lines("child"))
        first = pid_of(watched)
        os.kill(first, signal.SIGKILL)
        await watched.until(lambda: len(watched.lines("child")) == 2)

        assert "child was killed by SIGKILL, restarting in 0.25 s" in watched.lines("kvoy")
        assert pid_of(watched) != first
        assert not alive(first)
    assert not alive(pid_of(watched))


async def test_a_child_that_keeps_failing_is_restarted_with_growing_delays():
    async with supervised(shell("child", "exit 3")) as watched:
        await watched.until(lambda: len(watched.lines("kvoy")) >= 5)

    delays = [line for line in watched.lines("kvoy") if "exited with status 3" in line]
    assert [line.rpartition(" in ")[2] for line in delays[:3]] == ["0.25 s", "0.5 s", "1 s"]


async def test_a_command_that_does_not_exist_is_told():
    async with supervised(Child("child", ("/nowhere/at-all",))) as watched:
        await watched.until(lambda: watched.lines("child"))

    assert watched.lines("child")[0] == "cannot run /nowhere/at-all: No such file or directory"


async def test_children_start_when_what_they_need_is_ready_and_stop_the_other_way_round(tmp_path):
    talk = 'echo start; trap "echo stop; exit 0" TERM; while :; do sleep 0.02; done'
    (tmp_path / "s").mkdir()
    listen = (
        "import signal, socket, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('stop', flush=True)))\n"
        "print('start', flush=True)\n"
        "time.sleep(0.3)\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "print('listening', flush=True)\n"
        "while True: s.accept()[0].close()"
    )
    address = str(tmp_path / "s" / "a")
    async with supervised(
        Child("store", (sys.executable, "-c", listen, address), ready=(Probe(f"unix:{address}"),)),
        shell("worker", talk, needs=("store",)),
        shell("proxy", talk, needs=("worker",)),
    ) as watched:
        async with asyncio.timeout(SECONDS):
            await watched.announced.wait()
        await watched.until(lambda: "start" in watched.lines("proxy"))
        await watched.until(lambda: "start" in watched.lines("worker"))

    said = [tuple(re.split(r" *\| ", line)) for line in watched.said.splitlines()]
    assert [text for who, text in said if who == "store"] == ["start", "listening", "stop"]
    assert said.index(("store", "listening")) < said.index(("worker", "start"))
    assert [who for who, text in said if text == "stop"] == ["proxy", "worker", "store"]


async def test_a_child_that_ignores_sigterm_is_killed_with_all_it_started():
    script = 'trap "" TERM; sleep 1000 & echo pid $$; echo grandchild $!; while :; do sleep 0.1; done'
    async with supervised(shell("child", script, grace_s=0.3)) as watched:
        await watched.until(lambda: len(watched.lines("child")) == 2)

    assert "child did not stop within 0.3 s, killing it" in watched.lines("kvoy")
    grandchild = int(watched.lines("child")[1].split()[1])
    await watched.until(lambda: not alive(grandchild))
    assert not alive(pid_of(watched))


async def test_a_grandchild_that_holds_the_output_does_not_delay_the_restart():
    script = "sleep 1000 & echo grandchild $!; echo pid $$; exec sleep 1000"
    async with supervised(shell("child", script)) as watched:
        await watched.until(lambda: len(watched.lines("child")) == 2)
        grandchild = int(watched.lines("child")[0].split()[1])
        os.kill(pid_of(watched), signal.SIGKILL)
        await watched.until(lambda: len(watched.lines("child")) == 4)

        await watched.until(lambda: not alive(grandchild))


async def test_asking_to_stop_twice_kills():
    script = 'trap "" TERM; echo pid $$; while :; do sleep 0.1; done'
    async with supervised(shell("child", script, grace_s=1000)) as watched:
        await watched.until(lambda: watched.lines("child"))
        watched.supervisor.stop()
        await watched.until(lambda: "stopping" in watched.lines("kvoy"))
        watched.supervisor.stop()

    assert not alive(pid_of(watched))


async def test_an_end_before_the_start_starts_nothing():
    async with supervised(shell("child", "echo started; sleep 1000")) as watched:
        watched.supervisor.stop()

    assert watched.lines("child") == []


async def test_lines_of_many_children_never_mix():
    script = 'for i in $(seq 300); do printf %s "$0"; printf "%s\\n" "$0$0$0"; done; sleep 1000'
    children = [Child(name, ("/bin/sh", "-c", script, name * 50)) for name in "abcd"]
    async with supervised(*children) as watched:
        await watched.until(lambda: watched.said.count("\n") == 1200)

    for line in watched.said.splitlines():
        who, text = re.split(r" *\| ", line)
        assert who == "kvoy" or text == who * 200


async def test_output_without_a_newline_is_shown_when_the_child_ends():
    async with supervised(shell("child", "printf last-words; exit 1")) as watched:
        await watched.until(lambda: watched.lines("child"))

    assert watched.lines("child")[0] == "last-words"


async def test_what_makes_a_child_wait_is_reported(monkeypatch):
    monkeypatch.setattr("extproc.supervise.plan.FIRST_REMINDER_S", 0.2)
    probe = Probe("unix:/tmp/nobody-here.sock")
    async with supervised(shell("child", "sleep 1000", ready=(probe,), hint="see there")) as watched:
        await watched.until(lambda: any("waiting for child" in line for line in watched.lines("kvoy")))

    assert (
        "waiting for child (0 s): unix:/tmp/nobody-here.sock does not accept connections "
        "(No such file or directory); see there"
    ) in watched.lines("kvoy")


PROGRAM = """
import sys, uvloop
from extproc.supervise import Child, Log, Supervisor, stop_on_signals

async def main():
    children = [Child(name, ("/bin/sh", "-c", sys.argv[1])) for name in ("one", "two")]
    with Log.to_stderr(["one", "two"]) as log:
        supervisor = Supervisor(children, log, lambda: print("ready", flush=True))
        stop_on_signals(supervisor.stop)
        await supervisor.run()

uvloop.run(main())
"""


@contextmanager
def program(script):
    """A supervisor in a process of its own, running under uvloop, once all children are ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def pids(process, count):
    found = []
    while len(found) < count:
        found += re.findall(r"pid (\d+)", process.stderr.readline())
    return list(map(int, found))


def eventually(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_child_outlives_a_supervisor_that_is_killed():
    with program('trap "" TERM HUP INT; echo pid $$; while :; do sleep 1; done') as process:
        children = pids(process, 2)
        process.kill()

        eventually(lambda: not any(map(alive, children)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(number):
    with program("echo pid $$; exec sleep 1000") as process:
        children = pids(process, 2)
        process.send_signal(number)

        assert process.wait(SECONDS) == 0
        assert not any(map(alive, children))


def test_a_second_signal_does_not_wait():
    with program('trap "" TERM; echo pid $$; while :; do sleep 1; done') as process:
        children = pids(process, 2)
        process.send_signal(signal.SIGINT)
        while "stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)

        assert process.wait(SECONDS) == 0
        assert not any(map(alive, children))
