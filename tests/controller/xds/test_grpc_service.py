"""Calls to our own gRPC services. That the retries find another worker is shown in test_deciders."""

from controller.xds.grpc_service import grpc_service, other_endpoints


def test_a_retry_never_goes_to_an_endpoint_that_has_failed():
    retry = other_endpoints(retries=3)
    assert retry.num_retries == 3
    assert [each.name for each in retry.retry_host_predicate] == [
        "envoy.retry_host_predicates.previous_hosts"
    ]


def test_a_service_without_retries_has_no_policy():
    service = grpc_service("kvoy-extproc-0")
    assert service.envoy_grpc.cluster_name == "kvoy-extproc-0"
    assert service.retry_policy is None
