import subprocess
from pathlib import Path

import pytest

from extproc.supervise.plan import Probe
from extproc.supervise.worker import worker_name, worker_socket, workers

PLACE = Path("/run/kvoy")


def two(**more):
    addresses = ("127.0.0.1:9190", "127.0.0.1:9191")
    return workers(PLACE, addresses, redis="redis://state", group="blue", hint="look there", **more)


def test_each_worker_has_a_name_a_socket_and_an_admin_address_of_its_own():
    first, second = two()

    assert (first.name, second.name) == ("extproc-0", "extproc-1")
    assert " ".join(second.argv).endswith(
        "-m extproc --name extproc-1 --socket /run/kvoy/extproc-1.sock --group blue --admin 127.0.0.1:9191"
    )
    assert dict(second.env) == {"KVOY_REDIS": "redis://state"}
    assert second.ready == (Probe("127.0.0.1:9191", "/readyz"), Probe("unix:/run/kvoy/extproc-1.sock"))
    assert second.hint == "look there"


def test_workers_wait_for_what_they_need():
    assert [worker.needs for worker in two(needs=("valkey",))] == [("valkey",)] * 2


def test_a_worker_understands_its_command_line():
    (worker,) = workers(PLACE, ("127.0.0.1:9190",), redis="redis://state", group="blue", hint="")

    done = subprocess.run([*worker.argv, "--help"], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    for option in (part for part in worker.argv if part.startswith("--")):
        assert option in done.stdout
    for variable, _ in worker.env:
        assert variable in done.stdout


def test_a_command_line_shows_no_password():
    (worker,) = workers(PLACE, ("127.0.0.1:9190",), redis="redis://me:secret@state", group="blue", hint="")

    assert not any("secret" in part for part in worker.argv)


def test_a_path_too_long_for_a_socket_is_refused():
    with pytest.raises(ValueError, match=r"/extproc-0.sock is longer than the 100 bytes"):
        worker_socket(Path("/" + "x" * 90), 0)


def test_sockets_are_named_like_their_workers():
    assert worker_socket(PLACE, 3) == f"/run/kvoy/{worker_name(3)}.sock"
