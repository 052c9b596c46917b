import asyncio
import logging
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from controller.app import configure_logging, serve
from controller.settings import Settings
from controller.xds.resources import ROUTES

REPOSITORY = Path(__file__).parents[2]
QUICKSTART = REPOSITORY / "examples" / "quickstart"
DEADLINE_S = 30


@pytest.fixture
def run_dir():
    with tempfile.TemporaryDirectory(prefix="kvoy-", dir="/tmp") as name:
        yield Path(name)


def settings_of(run_dir, url):
    return Settings(
        manifests=QUICKSTART,
        redis_url=url,
        group="g",
        xds_socket=str(run_dir / "xds.sock"),
        listen="127.0.0.1:0",
        workers=(("extproc-0", str(run_dir / "extproc-0.sock")),),
        body_limit_bytes=2**20,
    )


def answers(path):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


async def test_the_manifests_reach_the_store_and_envoy_is_served(run_dir, valkey, store):
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(settings_of(run_dir, valkey.url), store, stop))
        async with asyncio.timeout(DEADLINE_S):
            while (stored := await store.configuration.load()) is None or not answers(run_dir / "xds.sock"):
                await asyncio.sleep(0.02)
        stop.set()

    assert stored.generation == 1
    assert len(stored.records) == 6


@pytest.mark.parametrize("wanted", [True, False])
async def test_what_clients_are_told_is_as_the_settings_say(run_dir, valkey, store, monkeypatch, wanted):
    offered = []
    monkeypatch.setattr("controller.app.Ads.offer", lambda _, resources: offered.append(resources))
    stop = asyncio.Event()
    settings = replace(settings_of(run_dir, valkey.url), decision_header=wanted)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve(settings, store, stop))
        async with asyncio.timeout(DEADLINE_S):
            while not offered:
                assert not serving.done()
                await asyncio.sleep(0.02)
        stop.set()

    (table,) = offered[0].by_type[ROUTES].values()
    assert (b"%DYNAMIC_METADATA(kvoy:decision)%" in table) is wanted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(run_dir, own_valkey, number):
    manifests = run_dir / "manifests"
    manifests.mkdir()
    (manifests / "bad.yaml").write_text("a: [")
    command = [sys.executable, "-m", "controller", "-f", str(manifests), "--redis", own_valkey.url]
    command += ["--xds-socket", str(run_dir / "xds.sock"), "--extproc", f"extproc-0={run_dir}/e.sock"]
    log = run_dir / "log"
    with log.open("w") as stderr, subprocess.Popen(command, stderr=stderr, cwd=REPOSITORY) as process:
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not answers(run_dir / "xds.sock") or log.read_text().count("\n") < 2:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(number)
            process.wait(DEADLINE_S)
        finally:
            process.kill()

    first, second = log.read_text().splitlines()
    assert process.returncode == 0
    assert first.startswith("ERROR kvoy.controller bad.yaml: is not valid YAML: ")
    assert second == "ERROR kvoy.controller nothing is published until every problem (1) is corrected"


def test_lines_of_the_log_are_plain_and_the_watcher_adds_none(monkeypatch, capsys):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setenv("KVOY_LOG", "debug")
    watcher = logging.getLogger("watchfiles")
    monkeypatch.setattr(watcher, "level", watcher.level)

    configure_logging()
    logging.getLogger("kvoy.controller").debug("hello")
    logging.getLogger("watchfiles.main").info("1 change detected")

    assert capsys.readouterr().err == "DEBUG kvoy.controller hello\n"
