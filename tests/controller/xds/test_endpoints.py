"""EDS: the pods of a cluster."""

from controller.xds.endpoints import assignment


def addresses(found) -> list[tuple[str, int]]:
    sockets = (e.endpoint.address.socket_address for part in found.endpoints for e in part.lb_endpoints)
    return [(each.address, each.port_value) for each in sockets]


def test_every_address_is_an_endpoint_ipv6_without_brackets():
    found = assignment("model/ns/s", ("10.0.0.1:8000", "[fd00::1]:9000"))
    assert found.cluster_name == "model/ns/s"
    assert addresses(found) == [("10.0.0.1", 8000), ("fd00::1", 9000)]


def test_a_server_without_pods_still_has_an_assignment():
    assert addresses(assignment("model/ns/s", ())) == []
