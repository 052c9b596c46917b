import re
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from extproc.cli import main
from extproc.supervise import python

WITHOUT = "import sys; sys.modules['{module}'] = None; from extproc.cli import main; main()"
"""A kvoy for which a third-party module is not installed."""
IMPATIENT = (
    "from extproc.supervise import plan; plan.FIRST_REMINDER_S = 0.5; from extproc.cli import main; main()"
)
"""A kvoy that soon says what it waits for."""


def kvoy(*args):
    return CliRunner().invoke(main, args, prog_name="kvoy")


def kvoy_without(module, *args):
    code = WITHOUT.format(module=module)
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60)


def test_help_lists_every_verb_with_an_example():
    said = kvoy("--help")

    assert said.exit_code == 0
    for verb in ("bootstrap", "controller", "extproc", "up"):
        assert re.search(rf"^  {verb} +\w", said.output, re.MULTILINE), verb
    assert "kvoy up -f manifests" in said.output
    assert "A checkout of kvoy has one to start with: examples/quickstart" in " ".join(said.output.split())


def test_help_imports_no_service():
    """So it is there at once."""
    code = (
        "import sys; from extproc.cli import main; main(['--help'], standalone_mode=False); "
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    heavy = {
        "grpc",
        "aiohttp",
        "envoy",
        "envoy_data_plane",
        "betterproto2",
        "redis",
        "yaml",
        "uvloop",
        "asyncio",
    }
    assert done.returncode == 0, done.stderr
    assert heavy.intersection(done.stderr.split()) == set()


def test_the_version_is_told():
    assert re.fullmatch(r"kvoy \d+\.\d+\.\d+\S*\n", kvoy("--version").output)


def test_an_unknown_verb_is_an_error():
    said = kvoy("fly")

    assert said.exit_code == 2
    assert "No such command 'fly'" in said.output


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        ("extproc --socket-dir /nowhere --redis redis://x", "aiohttp", "extproc"),
        ("controller -f /tmp --redis redis://x --xds-socket /tmp/s --extproc a=/b", "yaml", "controller"),
        ("bootstrap --xds-socket /s --node-id n --admin unix:/a", "envoy_data_plane", "controller"),
    ],
)
def test_a_missing_extra_is_named(command, missing, extra):
    done = kvoy_without(missing, *command.split())

    assert done.returncode != 0
    assert f"pip install 'kvoy[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verb_that_cannot_be_imported_is_listed_with_what_it_needs(monkeypatch):
    stand_in(monkeypatch, "up = nowhere_at_all.cli:up")

    listed = kvoy("--help")
    used = kvoy("up", "--any", "--options", "here")
    asked = kvoy("up", "--help")

    assert listed.exit_code == 0
    assert "(not installed: pip install 'kvoy[up]')" in listed.output
    for said in (used, asked):
        assert said.exit_code == 1
        assert (
            "`kvoy up` needs nowhere_at_all, which the extra installs: pip install 'kvoy[up]'" in said.output
        )


def test_a_module_of_our_own_that_is_missing_is_a_defect_and_no_extra(monkeypatch):
    stand_in(monkeypatch, "up = extproc.nowhere:up")

    assert isinstance(kvoy("up").exception, ModuleNotFoundError)


def stand_in(monkeypatch, line):
    """Let the entry points be this one."""
    from importlib.metadata import EntryPoint, EntryPoints

    name, value = line.split(" = ")
    points = EntryPoints([EntryPoint(name, value, "kvoy.commands")])
    monkeypatch.setattr("extproc.cli.entry_points", lambda **wanted: points.select(**wanted))


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(prefix="kvoy-test-", dir="/tmp") as name:
        yield name


@pytest.fixture
def busy():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"--redis": "localhost:6379"}, "Invalid value for '--redis': localhost:6379 is no Redis URL"),
        ({"--redis": "redis://me:secret@"}, "Invalid value for '--redis': redis:// names no host"),
        ({"--admin": "9190"}, "Invalid value for '--admin': 9190 is not HOST:PORT"),
        ({"--admin": "localhost:0"}, "Invalid value for '--admin': localhost is no IP address"),
        ({"--group": "a/b"}, "Invalid value for '--group': 'a/b' is no group"),
        ({"--group": "{a}"}, "Invalid value for '--group': '{a}' is no group"),
        ({"--socket-dir": "/tmp/" + "x" * 100}, "is longer than the 100 bytes that a Unix socket"),
        ({"--socket-dir": "/proc/nowhere"}, "Invalid value for '--socket-dir'"),
        ({"--workers": "0"}, "Invalid value for '--workers'"),
    ],
)
def test_a_bad_option_of_extproc_is_named(place, options, error):
    given = {"--redis": "redis://x", "--socket-dir": f"{place}/s", "--admin": "127.0.0.1:0", **options}

    said = kvoy("extproc", *(part for option in given.items() for part in option))

    assert said.exit_code == 2
    assert error in " ".join(said.output.split())
    assert "secret" not in said.output


def test_a_busy_admin_port_of_extproc_is_named(place, busy):
    said = kvoy("extproc", "--redis", "redis://x", "--socket-dir", place, "--admin", f"127.0.0.1:{busy}")

    assert said.exit_code == 2
    assert f"Invalid value for '--admin': cannot listen on 127.0.0.1:{busy}" in " ".join(said.output.split())


@contextmanager
def extproc(place, *options):
    """`kvoy extproc` without a Redis: its workers never get ready, but they run, and answer that."""
    where = ("--socket-dir", f"{place}/new", "--redis", f"unix://{place}/no-redis.sock")
    process = subprocess.Popen(
        python("-c", IMPATIENT, "extproc", *where, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said_until(process, *texts):
    """The log up to the line that completes these texts."""
    said = ""
    while not all(text in said for text in texts):
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


def test_extproc_starts_its_workers_and_stops_them(place):
    with extproc(place, "--workers", "2", "--admin", "127.0.0.1:0") as process:
        said = said_until(process, "waiting for extproc-0", "waiting for extproc-1")
        process.send_signal(signal.SIGTERM)
        rest, more = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "ready" not in rest
    assert f"it needs Redis at unix://{place}/no-redis.sock" in said
    assert re.search(r"^kvoy +\| stopping$", said + more, re.MULTILINE)


def test_the_admin_endpoint_of_extproc_may_have_an_ipv6_address(place):
    with socket.socket(socket.AF_INET6) as listening:
        try:
            listening.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    with extproc(place, "--workers", "1", "--admin", "[::1]:0") as process:
        assert "restarting" not in said_until(process, "/readyz says 503")


def test_a_log_level_that_is_none_is_no_traceback(place, monkeypatch):
    monkeypatch.setenv("KVOY_LOG", "bogus")
    with extproc(place, "--workers", "1", "--admin", "127.0.0.1:0") as process:
        said = said_until(process, "KVOY_LOG='bogus' is no level", "/readyz says 503")

    assert "Traceback" not in said
    assert "restarting" not in said
