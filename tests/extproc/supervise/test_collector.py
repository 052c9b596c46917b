import subprocess

from extproc.supervise.collector import collector
from extproc.supervise.plan import Probe


def made(**more):
    return collector("127.0.0.1:9189", redis="redis://me:secret@state", group="blue", hint="look", **more)


def test_the_collector_is_ready_when_its_admin_endpoint_says_so():
    child = made(interval_s=0.5, needs=("valkey",))

    assert child.name == "collector"
    assert " ".join(child.argv).endswith(
        "-m extproc.collect --group blue --admin 127.0.0.1:9189 --interval 0.5"
    )
    assert child.ready == (Probe("127.0.0.1:9189", "/readyz"),)
    assert (child.needs, child.hint) == (("valkey",), "look")


def test_the_password_is_not_on_the_command_line():
    assert dict(made().env) == {"KVOY_REDIS": "redis://me:secret@state"}
    assert "secret" not in " ".join(made().argv)


def test_it_understands_its_command_line():
    child = made()

    done = subprocess.run([*child.argv, "--help"], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    for option in (part for part in child.argv if part.startswith("--")):
        assert option in done.stdout
