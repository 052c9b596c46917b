"""The demo of the quickstart."""

import os
import re
import socket
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart"


def processes():
    """Command lines of all processes that belong to kvoy."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found.append(line)
    return found


def test_every_request_goes_where_the_manifests_say(demo, manifests, scratch):
    shared_memory = set(os.listdir("/dev/shm"))

    done = demo(manifests)

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert re.search(r"^premium user +premium +deepseek-r1-7b-0 +200 ", done.stdout, re.M)
    assert re.search(r"^any user, a book +default +deepseek-r1-1-5b-\d +200 ", done.stdout, re.M)
    assert re.search(r"^the same book .* 200 .* of \d+ prompt tokens cached$", done.stdout, re.M)
    assert re.search(r"^unknown model .* 404 ", done.stdout, re.M)
    assert re.search(r"^which models are there\? .* 200 ", done.stdout, re.M)
    assert sum(line.startswith("· ") for line in lines) == 4
    assert list(scratch.iterdir()) == []
    assert set(os.listdir("/dev/shm")) - shared_memory == set()
    assert [line for line in processes() if str(manifests) in line] == []


def test_a_busy_engine_address_is_named(demo, manifests):
    address = re.search(r"podIP: (\S+)", (manifests / "pods.yaml").read_text())[1]
    with socket.socket() as listening:
        listening.bind((address, 8000))
        listening.listen()

        done = demo(manifests)

    assert done.returncode == 1
    assert f"cannot listen on {address}:8000 (Address already in use)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_request_that_goes_elsewhere_fails_the_demo(demo, manifests):
    """Here the premium rule sends its users to the small model."""
    route = manifests / "modelroute.yaml"
    route.write_text(route.read_text().replace("deepseek-r1-7b", "deepseek-r1-1-5b"))

    done = demo(manifests)

    assert done.returncode == 1
    assert (
        "demo failed: premium user: went to ModelServer default/deepseek-r1-1-5b, not default/deepseek-r1-7b"
    ) in done.stderr
