from extproc.state import envoy


def test_cluster_names_tell_namespaces_apart() -> None:
    assert envoy.cluster_name("default", "r1") == "model/default/r1"
    assert envoy.cluster_name("a", "b") != envoy.cluster_name("b", "a")


def test_own_headers_lie_under_the_prefix_that_envoy_strips() -> None:
    assert envoy.CLUSTER_HEADER.startswith(envoy.OWN_HEADER_PREFIX)
    assert envoy.REASON_HEADER.startswith(envoy.OWN_HEADER_PREFIX)


def test_header_names_are_lower_case() -> None:
    # HTTP/2 knows no other; Envoy rejects a mutation that writes one.
    for name in (envoy.CLUSTER_HEADER, envoy.REASON_HEADER, envoy.DESTINATION):
        assert name == name.lower()
