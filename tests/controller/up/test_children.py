from dataclasses import replace
from pathlib import Path

import pytest

from controller.up.children import bootstrap_command, children
from controller.up.place import Place
from controller.up.settings import Settings
from extproc.supervise import Probe
from extproc.supervise.plan import Fleet

PLACE = Place(Path("/tmp/kvoy-1"))
SETTINGS = Settings(
    Path("/manifests"), "127.0.0.1:8080", ("127.0.0.1:9190", "127.0.0.1:9191"), "127.0.0.1:9189", "blue"
)


def made(settings=SETTINGS, valkey="/bin/valkey", cpus=8):
    found = children(settings, PLACE, envoy="/bin/envoy", valkey=valkey, cpus=cpus)
    Fleet.of(found)  # names and needs make sense
    return {child.name: child for child in found}


def option(child, name):
    return child.argv[child.argv.index(name) + 1]


def test_everything_is_started_and_stopped_in_this_order():
    assert list(made()) == ["valkey", "controller", "extproc-0", "extproc-1", "collector", "envoy"]


def test_envoy_waits_for_controller_and_workers_which_wait_for_the_store():
    found = made()

    for name in ("controller", "extproc-1", "collector"):
        assert found[name].needs == ("valkey",)
    assert found["envoy"].needs == ("controller", "extproc-0", "extproc-1")


def test_all_talk_to_the_same_store():
    found = made()

    assert option(found["valkey"], "--unixsocket") == "/tmp/kvoy-1/valkey.sock"
    for name in ("controller", "extproc-0", "extproc-1", "collector"):
        assert dict(found[name].env) == {"KVOY_REDIS": "unix:///tmp/kvoy-1/valkey.sock"}
        assert option(found[name], "--group") == "blue"


def test_with_a_redis_there_is_no_valkey():
    found = made(replace(SETTINGS, redis_url="redis://me:secret@state"), valkey=None)

    assert "valkey" not in found
    assert found["controller"].needs == ()
    assert dict(found["extproc-0"].env) == {"KVOY_REDIS": "redis://me:secret@state"}
    assert not any("secret" in part for child in found.values() for part in child.argv)
    assert "Redis at redis://state" in found["extproc-0"].hint


def test_the_controller_knows_the_workers_and_where_envoy_listens():
    controller = made()["controller"]

    assert option(controller, "-f") == "/manifests"
    assert option(controller, "--listen") == "127.0.0.1:8080"
    assert [
        value
        for name, value in zip(controller.argv, controller.argv[1:], strict=False)
        if name == "--extproc"
    ] == [
        "extproc-0=/tmp/kvoy-1/extproc-0.sock",
        "extproc-1=/tmp/kvoy-1/extproc-1.sock",
    ]
    assert controller.ready == (Probe(f"unix:{option(controller, '--xds-socket')}"),)


def test_the_controller_is_told_whether_clients_learn_the_decision():
    assert "--decision-header" not in made()["controller"].argv
    assert "--decision-header" in made(replace(SETTINGS, decision_header=True))["controller"].argv


def test_workers_find_the_tokenisers_where_the_user_says():
    assert "--tokenizers" not in made()["extproc-0"].argv
    argv = made(replace(SETTINGS, tokenizers=Path("/models")))["extproc-0"].argv
    assert argv[argv.index("--tokenizers") + 1] == "/models"


def test_envoy_is_ready_when_it_says_so_and_its_listener_is_open():
    assert made()["envoy"].ready == (Probe("unix:/tmp/kvoy-1/envoy.sock", "/ready"), Probe("127.0.0.1:8080"))


def test_envoy_leaves_nothing_in_shared_memory():
    assert "--disable-hot-restart" in made()["envoy"].argv


@pytest.mark.parametrize(("cpus", "threads"), [(1, "1"), (2, "2"), (64, "2")])
def test_envoy_has_a_thread_per_worker_where_there_are_cores(cpus, threads):
    assert option(made(cpus=cpus)["envoy"], "--concurrency") == threads


def test_the_bootstrap_names_the_sockets_of_this_place():
    command = " ".join(bootstrap_command(PLACE))

    assert "--xds-socket /tmp/kvoy-1/xds.sock" in command
    assert "--admin unix:/tmp/kvoy-1/envoy.sock" in command


def test_what_to_do_about_a_worker_that_waits_names_the_manifests():
    assert "valid manifests in /manifests" in made()["extproc-0"].hint
