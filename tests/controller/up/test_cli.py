import socket

import pytest
from click.testing import CliRunner

from controller.up.cli import up
from extproc.supervise import Address


def kvoy_up(*args):
    said = CliRunner().invoke(up, args)
    return said.exit_code, " ".join(said.output.split())


@pytest.fixture
def busy():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield str(listening.getsockname()[1])


@pytest.fixture
def started(monkeypatch):
    """What would be run, instead of running it."""
    seen = []

    async def run(settings):
        seen.append(settings)

    monkeypatch.setattr("controller.up.run.run", run)
    return seen


def test_without_a_directory_it_says_how_to_start():
    code, said = kvoy_up()

    assert code == 2
    assert "-f DIR is missing" in said
    assert "kvoy up -f examples/quickstart" in said


def test_a_directory_that_does_not_exist_is_named(tmp_path):
    code, said = kvoy_up("-f", str(tmp_path / "nowhere"))

    assert code == 2
    assert "Invalid value for '-f': Directory" in said
    assert "does not exist" in said


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "a.yaml").write_text("")

    code, said = kvoy_up("-f", str(tmp_path / "a.yaml"))

    assert code == 2
    assert "Invalid value for '-f'" in said


@pytest.mark.parametrize("flag", ["--port", "--admin-port"])
def test_a_port_in_use_is_named_with_its_flag(tmp_path, busy, flag):
    code, said = kvoy_up("-f", str(tmp_path), "--port", "0", "--admin-port", "0", flag, busy)

    assert code == 2
    assert f"Invalid value for '{flag}': cannot listen on 127.0.0.1:{busy} (Address already in use)" in said


@pytest.mark.parametrize(
    ("flag", "value", "error"),
    [
        ("--host", "localhost", "localhost is no IP address: write 127.0.0.1 or ::1 for this machine alone"),
        ("--host", "127.0.0.1:80", "127.0.0.1:80 is no IP address"),
        ("--group", "a/b", "'a/b' is no group"),
        ("--group", "a}{b", "'a}{b' is no group"),
    ],
)
def test_what_would_not_start_is_refused_at_once(tmp_path, started, flag, value, error):
    code, said = kvoy_up("-f", str(tmp_path), "--port", "0", "--admin-port", "0", flag, value)

    assert code == 2
    assert f"Invalid value for '{flag}': {error}" in said
    assert started == []


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_listened_on_in_brackets(tmp_path, started, host):
    code, said = kvoy_up("-f", str(tmp_path), "--port", "0", "--admin-port", "0", "--host", host)

    assert code == 0, said
    assert Address.parse(started[0].listen).host == "::1"


def test_an_address_of_another_machine_is_refused(tmp_path):
    code, said = kvoy_up("-f", str(tmp_path), "--host", "192.0.2.1", "--port", "0")

    assert code == 2
    assert "cannot listen on 192.0.2.1:0" in said


@pytest.mark.parametrize("url", ["localhost:6379", "http://me:secret@localhost", "redis://me:secret@"])
def test_a_bad_redis_url_is_refused_at_once(tmp_path, started, url):
    code, said = kvoy_up("-f", str(tmp_path), "--port", "0", "--admin-port", "0", "--redis", url)

    assert code == 2
    assert "Invalid value for '--redis'" in said
    assert "secret" not in said
    assert started == []


def test_a_redis_that_is_merely_down_is_told_and_waited_for(tmp_path, started):
    url = f"unix://me:secret@{tmp_path}/redis.sock"
    code, said = kvoy_up("-f", str(tmp_path), "--port", "0", "--admin-port", "0", "--redis", url)

    assert code == 0
    assert f"--redis unix://{tmp_path}/redis.sock: " in said
    assert "does not accept connections (No such file or directory); kvoy keeps trying" in said
    assert "secret" not in said
    assert started[0].redis_url == url


def test_options_become_settings_with_ports_chosen(tmp_path, started):
    code, _ = kvoy_up(
        "-f", str(tmp_path), "--port", "0", "--admin-port", "0", "--workers", "3", "--group", "blue"
    )

    assert code == 0
    (settings,) = started
    assert settings.manifests == tmp_path
    assert settings.group == "blue"
    assert settings.redis_url is None
    addresses = (settings.listen, *settings.admin, settings.collector)
    ports = [int(address.removeprefix("127.0.0.1:")) for address in addresses]
    assert len(ports) == 5
    assert 0 not in ports
    assert not settings.decision_header


def test_clients_are_told_decisions_only_if_asked_for(tmp_path, started):
    code, _ = kvoy_up("-f", str(tmp_path), "--port", "0", "--admin-port", "0", "--decision-header")

    assert code == 0
    assert started[0].decision_header


def test_a_failing_bootstrap_is_an_error_and_no_traceback(tmp_path, monkeypatch):
    from controller.up.run import NoBootstrap

    async def run(settings):
        raise NoBootstrap("it said this")

    monkeypatch.setattr("controller.up.run.run", run)

    code, said = kvoy_up("-f", str(tmp_path), "--port", "0", "--admin-port", "0")

    assert (code, said) == (1, "Error: `kvoy bootstrap` failed: it said this")
