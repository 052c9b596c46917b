"""The whole of `kvoy up`, with real Envoy and Valkey, as a user starts it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.up import run
from controller.up.binaries import valkey
from controller.up.ready import Ready
from controller.up.settings import Settings
from extproc.supervise import python

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"
SECONDS = 60
PATIENT = ("-m", "extproc.cli")
IMPATIENT = (
    "-c",
    "from extproc.supervise import plan; plan.FIRST_REMINDER_S = 0.5; from extproc.cli import main; main()",
)
"""A kvoy that soon says what it waits for."""


class Up:
    """A running `kvoy up`; its log is read all the time."""

    def __init__(self, process):
        self.process = process
        self._log = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self._log.append(line)

    @property
    def log(self):
        return "".join(self._log)

    def lines(self, name):
        found = (line.rstrip("\n").partition("| ") for line in self._log)
        return [text for who, _, text in found if who.strip() == name]

    def until(self, condition):
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.log
            assert self.process.poll() is None, self.log
            time.sleep(0.05)

    def ready(self):
        line = self.process.stdout.readline()
        assert line, self.end()
        return Ready.parse(line)

    def end(self):
        """Wait for the end; everything that was said."""
        self.process.wait(SECONDS)
        self._reader.join()
        return self.log


@contextmanager
def kvoy_up(directory, *options, kvoy=PATIENT):
    """`kvoy up` on free ports, in a temporary directory of its own that must be empty in the end."""
    scratch = Path(f"/tmp/kvoy-test-{os.getpid()}-{time.monotonic_ns() % 10**9}")
    scratch.mkdir()
    argv = python(*kvoy, "up", "-f", str(directory), "--port", "0", "--admin-port", "0", *options)
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    up = Up(process)
    up.scratch = scratch
    try:
        yield up
        if process.poll() is None:
            process.terminate()
        up.end()
        assert list(scratch.iterdir()) == [], up.log
    finally:
        process.kill()
        process.wait()
        up._reader.join()
        process.stdout.close()
        process.stderr.close()
        shutil.rmtree(scratch, ignore_errors=True)


def children_of(pid):
    """Process ids of the direct children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def child_with(pid, words):
    """The child whose command line has `words`."""
    for child in children_of(pid):
        if words in Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode():
            return child
    raise AssertionError(f"no child runs {words}")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def get(url):
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def answers(url):
    """Whether somebody is there and says 200."""
    try:
        return get(url)[0] == 200
    except OSError:
        return False


def shared_memory():
    return set(os.listdir("/dev/shm"))


def test_it_gets_ready_serves_and_leaves_nothing():
    before = shared_memory()
    with kvoy_up(QUICKSTART) as up:
        ready = up.ready()
        status, body = get(f"{ready.url}/v1/models")
        assert (status, b"deepseek-multi-models" in body) == (200, True)
        assert [get(f"{admin}/readyz")[0] for admin in ready.admin] == [200, 200]
        children = children_of(up.process.pid)
        assert get(f"{ready.collector}/readyz")[0] == 200
        assert len(children) == 6

        up.process.send_signal(signal.SIGINT)
        up.end()

        assert up.process.returncode == 0
        assert not any(map(alive, children))
        assert "did not stop" not in up.log
    assert shared_memory() - before == set()


def test_it_serves_on_an_ipv6_address():
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with kvoy_up(QUICKSTART, "--host", "::1", "--workers", "1") as up:
        ready = up.ready()

        assert ready.url.startswith("http://[::1]:")
        assert get(f"{ready.url}/v1/models")[0] == 200


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as listening:
            listening.bind(("::1", 0))
    except OSError:
        return False
    return True


COMMANDS = {
    "extproc-1": "--name extproc-1",
    "envoy": "_bin/envoy",
    "controller": "extproc.cli controller",
    "valkey": "valkey-server",
}


def test_any_child_that_is_killed_is_named_and_comes_back():
    with kvoy_up(QUICKSTART) as up:
        ready = up.ready()
        for name, command in COMMANDS.items():
            os.kill(child_with(up.process.pid, command), signal.SIGKILL)
            up.until(lambda name=name: f"{name} is ready again" in up.lines("kvoy"))

            assert f"{name} was killed by SIGKILL, restarting in 0.25 s" in up.lines("kvoy")
            up.until(lambda: answers(f"{ready.url}/v1/models"))


def test_no_process_outlives_it_when_it_is_killed():
    with kvoy_up(QUICKSTART) as up:
        up.ready()
        children = children_of(up.process.pid)
        up.process.kill()
        deadline = time.monotonic() + SECONDS
        while any(map(alive, children)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for left in up.scratch.iterdir():  # nobody was left to remove it
            shutil.rmtree(left)


def test_it_can_be_stopped_while_it_starts():
    with kvoy_up(QUICKSTART) as up:
        up.until(lambda: list(up.scratch.iterdir()))
        up.process.terminate()
        up.end()

        assert up.process.returncode == 0


def test_a_directory_with_an_error_is_waited_for_until_it_is_mended(tmp_path):
    for file in QUICKSTART.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    route = tmp_path / "modelroute.yaml"
    good = route.read_text()
    route.write_text(good.replace("modelServerName: deepseek-r1-7b", "modelServerName: []"))
    with kvoy_up(tmp_path, kvoy=IMPATIENT) as up:
        up.until(lambda: any("modelroute.yaml" in line for line in up.lines("controller")))
        up.until(lambda: any(re.match(r"waiting for extproc-\d", line) for line in up.lines("kvoy")))
        assert f"valid manifests in {tmp_path}" in up.log

        route.write_text(good)

        assert get(f"{up.ready().url}/v1/models")[0] == 200


def test_a_redis_that_comes_late_is_waited_for(tmp_path):
    place = Path(f"/tmp/kvoy-test-redis-{os.getpid()}")
    place.mkdir()
    try:
        with kvoy_up(QUICKSTART, "--redis", f"unix://{place}/s", kvoy=IMPATIENT) as up:
            up.until(lambda: "kvoy keeps trying" in up.log)
            up.until(lambda: any("waiting for extproc-0" in line for line in up.lines("kvoy")))
            store = subprocess.Popen(
                [valkey(), "--port", "0", "--unixsocket", f"{place}/s", "--save", "", "--loglevel", "nothing"]
            )
            try:
                assert get(f"{up.ready().url}/v1/models")[0] == 200
                assert up.lines("valkey") == []
                up.process.terminate()
                up.end()
            finally:
                store.terminate()
                store.wait()
    finally:
        shutil.rmtree(place)


async def test_a_bootstrap_that_fails_is_told_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "bootstrap_command", lambda place: ("/bin/sh", "-c", "echo no >&2; exit 3"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(run.NoBootstrap, match=r"^no$"):
        await run.run(Settings(tmp_path, "127.0.0.1:1", ("127.0.0.1:2",), "127.0.0.1:3"))

    assert list(tmp_path.iterdir()) == []


async def test_a_reachable_redis_has_no_complaint(tmp_path):
    assert "does not accept connections" in await run.unreachable(f"unix://{tmp_path}/s")
