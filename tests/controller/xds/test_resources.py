"""From records to resources: what is there, and what changes when."""

from dataclasses import replace

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from hypothesis import given
from hypothesis import strategies as st

import controller.xds.endpoints
from controller.xds.plane import DataPlane
from controller.xds.resources import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, build
from extproc.state.records import Disaggregation, Member, ModelRoute, ModelServer, Pod, Rule, Target, Tls

PLANE = DataPlane("127.0.0.1:8080", (("extproc-0", "/run/0.sock"), ("extproc-1", "/run/1.sock")))
SERVER = ModelServer("ns", "s", "vLLM", 8000)
APART = ModelServer("ns", "s", "vLLM", 8000, disaggregation=Disaggregation("nixl"))
OTHER = ModelServer("ns", "other", "vLLM", 9000)


def pod(name: str, ip: str, *servers: str, port: int | None = None, namespace: str = "ns") -> Pod:
    return Pod(namespace, name, ip, servers or ("s",), port)


def built(*records, plane: DataPlane = PLANE):
    return build({record.key: record for record in records}, plane)


def endpoints(resources, cluster: str) -> list[str]:
    assignment = ClusterLoadAssignment.FromString(resources.by_type[ENDPOINTS][cluster])
    sockets = [each.endpoint.address.socket_address for each in assignment.endpoints[0].lb_endpoints]
    return [f"{each.address} {each.port_value}" for each in sockets]


def changed(before, after) -> set[str]:
    return {
        each
        for each in (CLUSTERS, ENDPOINTS, LISTENERS, ROUTES)
        if before.versions[each] != after.versions[each]
    }


def test_a_model_server_has_a_cluster_endpoints_and_a_route():
    resources = built(SERVER, OTHER, pod("a", "10.0.0.1"), pod("b", "fd00::1", "s", "other", port=7000))
    assert {"model/ns/s", "model/ns/other"} < set(resources.by_type[CLUSTERS])
    assert endpoints(resources, "model/ns/s") == ["10.0.0.1 8000", "fd00::1 7000"]
    assert endpoints(resources, "model/ns/other") == ["fd00::1 7000"]
    (raw,) = resources.by_type[ROUTES].values()
    (host,) = RouteConfiguration.FromString(raw).virtual_hosts
    assert [route.name for route in host.routes] == ["model/ns/other", "model/ns/s", "undecided"]


def test_without_records_envoy_still_has_a_listener_and_the_workers():
    resources = built()
    workers = {"kvoy-extproc", "kvoy-worker/extproc-0", "kvoy-worker/extproc-1"}
    assert {*workers, "kvoy-nowhere"} < set(resources.by_type[CLUSTERS])
    assert list(resources.by_type[LISTENERS]) == ["kvoy"]
    assert resources.by_type[ENDPOINTS] == {}


def test_whatever_a_worker_is_called_it_takes_no_other_cluster_away():
    names = ("extproc", "nowhere", "second-chance", "third-chance", "xds")
    plane = replace(PLANE, workers=tuple((name, f"/run/{name}.sock") for name in names))
    usual = {name for name in built(SERVER).by_type[CLUSTERS] if not name.startswith("kvoy-worker/")}

    clusters = built(SERVER, plane=plane).by_type[CLUSTERS]

    assert set(clusters) == usual | {f"kvoy-worker/{name}" for name in names}
    nowhere = Cluster.FromString(clusters["kvoy-nowhere"])
    assert nowhere.load_assignment.endpoints == []


def test_pods_of_another_namespace_or_server_are_not_endpoints():
    resources = built(SERVER, pod("a", "10.0.0.1", namespace="elsewhere"), pod("b", "10.0.0.2", "nobody"))
    assert endpoints(resources, "model/ns/s") == []


def test_two_pods_at_one_address_are_one_endpoint():
    resources = built(SERVER, pod("old", "10.0.0.1"), pod("new", "10.0.0.1"))
    assert endpoints(resources, "model/ns/s") == ["10.0.0.1 8000"]


def test_a_pod_that_only_computes_prompts_is_no_endpoint_of_the_server_for_which_it_does():
    prefill, decode = ({"s": Member(role, "g")} for role in ("prefill", "decode"))
    resources = built(
        APART,
        OTHER,
        Pod("ns", "a", "10.0.0.1", ("s", "other"), members=prefill),
        Pod("ns", "b", "10.0.0.2", ("s",), members=decode),
    )
    assert endpoints(resources, "model/ns/s") == ["10.0.0.2 8000"]
    assert endpoints(resources, "model/ns/other") == ["10.0.0.1 9000"]


def test_a_server_whose_prefill_and_decode_come_apart_changes_its_cluster():
    assert CLUSTERS in changed(built(SERVER), built(APART))


def test_a_pod_that_comes_changes_endpoints_alone():
    before, after = (
        built(SERVER, pod("a", "10.0.0.1")),
        built(SERVER, pod("a", "10.0.0.1"), pod("b", "10.0.0.2")),
    )
    assert changed(before, after) == {ENDPOINTS}


def test_one_pod_of_a_thousand_that_changes_is_serialised_alone(monkeypatch):
    many = [pod(f"p{i}", f"10.7.{i // 250}.{i % 250 + 1}") for i in range(1000)]
    before = built(SERVER, *many)
    serialised = []
    of_one = controller.xds.endpoints.tcp
    monkeypatch.setattr("controller.xds.endpoints.tcp", lambda each: serialised.append(each) or of_one(each))

    after = built(SERVER, *many[:-1], pod("p999", "10.8.0.1"))

    assert serialised == ["10.8.0.1:8000"]
    assert changed(before, after) == {ENDPOINTS}
    was, now = set(endpoints(before, "model/ns/s")), set(endpoints(after, "model/ns/s"))
    assert len(was) == len(now) == 1000
    assert now - was == {"10.8.0.1 8000"}


def test_a_changed_cluster_sends_its_endpoints_again():
    secured = ModelServer("ns", "s", "vLLM", 8000, tls=Tls("engine.test"))
    assert changed(built(SERVER), built(secured)) == {CLUSTERS, ENDPOINTS}


def test_a_changed_timeout_sends_the_routes_alone():
    patient = ModelServer("ns", "s", "vLLM", 8000, timeout_s=3)
    assert changed(built(SERVER), built(patient)) == {ROUTES}


def test_a_changed_listener_sends_the_routes_again():
    smaller = replace(PLANE, workers=PLANE.workers[:1])
    assert {LISTENERS, ROUTES} <= changed(built(SERVER), built(SERVER, plane=smaller))


def test_routes_that_only_workers_read_change_nothing():
    route = ModelRoute("ns", "r", (Rule((Target("s"),)),), model="m")
    assert changed(built(SERVER), built(SERVER, route)) == set()


def test_a_listen_address_that_is_none_is_refused():
    with pytest.raises(ValueError, match="8080 is not HOST:PORT"):
        built(plane=replace(PLANE, listen="8080"))


names = st.sampled_from(["a", "b", "c"])
servers = st.builds(ModelServer, names, names, st.just("vLLM"), st.sampled_from([1, 8000]))
pods = st.builds(
    Pod, names, names, st.sampled_from(["10.0.0.1", "::1"]), st.lists(names, max_size=3).map(tuple)
)


@given(st.lists(servers | pods, max_size=6), st.randoms())
def test_the_order_of_records_is_of_no_consequence_and_every_cluster_has_endpoints(records, random):
    shuffled = list(records)
    random.shuffle(shuffled)
    unique = {record.key: record for record in records}
    again = {record.key: unique[record.key] for record in shuffled}
    resources = build(unique, PLANE)
    assert resources == build(again, PLANE)
    dynamic = {name for name in resources.by_type[CLUSTERS] if name.startswith("model/")}
    assert dynamic == set(resources.by_type[ENDPOINTS])
    for name in dynamic:
        assert Cluster.FromString(resources.by_type[CLUSTERS][name]).name == name
