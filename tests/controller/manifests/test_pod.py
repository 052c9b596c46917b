import json

import pytest

from controller.manifests.pod import Pod
from controller.manifests.reader import read_file
from extproc.state import records


def read(metadata=None, status=None, **more):
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "engine-0", "namespace": "team", **(metadata or {})},
        "status": {"podIP": "10.0.0.1", **(status or {})},
        **more,
    }
    return read_file("m.json", json.dumps(manifest).encode())


def view_of(metadata=None, status=None, **more) -> Pod:
    reading = read(metadata, status, **more)
    assert reading.problems == ()
    return reading.objects[0].view


def ready(status):
    return {"conditions": [{"type": "Initialized", "status": "False"}, {"type": "Ready", "status": status}]}


@pytest.mark.parametrize(
    ("metadata", "status", "routable"),
    [
        ({}, {}, True),
        ({}, {"phase": "Running"}, True),
        ({}, {"phase": "Pending"}, False),
        ({}, {"phase": "Succeeded"}, False),
        ({}, {"podIP": None}, False),
        ({}, {"podIP": ""}, False),
        ({}, ready("True"), True),
        ({}, ready("False"), False),
        ({}, ready("Unknown"), False),
        ({}, {"conditions": []}, True),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, {}, False),
        ({"deletionTimestamp": None}, {}, True),
    ],
)
def test_routable_is_addressed_running_ready_and_not_terminating(metadata, status, routable):
    assert view_of(metadata, status).routable is routable


def test_a_pod_without_status_is_not_routable():
    text = b"apiVersion: v1\nkind: Pod\nmetadata: {name: engine-0}\n"

    assert not read_file("m.yaml", text).objects[0].view.routable


def test_its_record():
    assert view_of().record(["a", "b"], {}) == records.Pod("team", "engine-0", "10.0.0.1", ("a", "b"))


def test_its_part_in_what_it_serves():
    members = {"b": records.Member("prefill", "one", 5600)}
    pod = view_of({"annotations": {"kvoy.io/kv-engine-id": "rack 4/engine ☃"}})

    assert pod.record(["a", "b"], members) == records.Pod(
        "team", "engine-0", "10.0.0.1", ("a", "b"), members=members, kv_engine="rack 4/engine ☃"
    )


def test_a_port_of_its_own():
    pod = view_of({"annotations": {"kvoy.io/port": "9000"}})

    assert pod.record((), {}).port == 9000


@pytest.mark.parametrize("name", ["kvoy.io/port", "kvoy.io/kv-port"])
@pytest.mark.parametrize("port", ["", "0", "65536", "http", "-1", "8000 ", "٨", "1" * 5000])
def test_a_port_that_is_none(name, port):
    (problem,) = read({"annotations": {name: port}}).problems

    assert problem.field == f'metadata.annotations["{name}"]'
    assert "is not a port from 1 to 65535" in problem.message


@pytest.mark.parametrize("engine", ["", "e" * 257, "a\nb", "\x00"])
def test_an_engine_id_that_is_none(engine):
    (problem,) = read({"annotations": {"kvoy.io/kv-engine-id": engine}}).problems

    assert problem.field == 'metadata.annotations["kvoy.io/kv-engine-id"]'
    assert problem.message.endswith("is not an engine id: 1 to 256 printable characters")


def test_the_longest_engine_id():
    pod = view_of({"annotations": {"kvoy.io/kv-engine-id": "e" * 256}})

    assert pod.record((), {}).kv_engine == "e" * 256


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("192.168.1.9", "192.168.1.9"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
    ],
)
def test_addresses_are_published_as_envoy_prints_them(written, canonical):
    assert view_of(status={"podIP": written}).record((), {}).ip == canonical


@pytest.mark.parametrize(
    "ip", ["10.0.0", "10.0.0.256", "010.0.0.1", "engine.local", "fe80::1%eth0", "10.0.0.1:80"]
)
def test_an_address_that_is_none(ip):
    (problem,) = read(status={"podIP": ip}).problems

    assert (problem.field, problem.message) == ("status.podIP", f'"{ip}" is not an IPv4 or IPv6 address')


def test_the_rest_of_a_pod_is_kubernetes_own():
    view = view_of(
        {"ownerReferences": [{"kind": "ReplicaSet"}], "labels": {"app": "x"}},
        {"qosClass": "Guaranteed", "containerStatuses": [{"ready": True}], "podIPs": [{"ip": "10.0.0.1"}]},
        spec={"containers": [{"name": "vllm", "image": "vllm/vllm-openai"}]},
    )

    assert view.metadata.labels == {"app": "x"}
    assert view.routable


def test_labels_must_be_strings():
    (problem,) = read({"labels": {"version": 1}}).problems

    assert (problem.field, problem.message) == ('metadata.labels["version"]', "expected a string, got 1")
