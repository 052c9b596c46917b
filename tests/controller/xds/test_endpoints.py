"""EDS: the pods of a cluster."""

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from hypothesis import given
from hypothesis import strategies as st

from controller.xds.endpoints import assignment


def addresses(raw: bytes) -> list[tuple[str, int]]:
    found = endpoint.ClusterLoadAssignment.FromString(raw)
    sockets = (e.endpoint.address.socket_address for part in found.endpoints for e in part.lb_endpoints)
    return [(each.address, each.port_value) for each in sockets]


def test_every_address_is_an_endpoint_ipv6_without_brackets():
    found = assignment("model/ns/s", ("10.0.0.1:8000", "[fd00::1]:9000"))
    assert endpoint.ClusterLoadAssignment.FromString(found).cluster_name == "model/ns/s"
    assert addresses(found) == [("10.0.0.1", 8000), ("fd00::1", 9000)]


def test_a_server_without_pods_still_has_an_assignment():
    assert addresses(assignment("model/ns/s", ())) == []


def whole(cluster: str, hosts: list[tuple[str, int]]) -> bytes:
    """The assignment as one message."""
    sockets = (core.SocketAddress(address=host, port_value=port) for host, port in hosts)
    places = (endpoint.Endpoint(address=core.Address(socket_address=socket)) for socket in sockets)
    return bytes(
        endpoint.ClusterLoadAssignment(
            cluster_name=cluster,
            endpoints=[
                endpoint.LocalityLbEndpoints(lb_endpoints=[endpoint.LbEndpoint(endpoint=p) for p in places])
            ],
        )
    )


@given(
    st.text("model/s", min_size=1, max_size=200),
    st.lists(st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 65535)), max_size=40),
)
def test_it_is_byte_for_byte_what_serialising_it_at_once_gives(cluster, hosts):
    found = assignment(cluster, tuple(f"{host}:{port}" for host, port in hosts))

    assert found == whole(cluster, hosts)


def test_a_thousand_pods_of_which_one_changes():
    before = [(f"10.0.{i // 250}.{i % 250}", 8000) for i in range(1000)]
    after = [("fd00::1", 8000) if i == 500 else each for i, each in enumerate(before)]

    for hosts in (before, after):
        written = tuple(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)
        assert addresses(assignment("model/ns/s", written)) == hosts
