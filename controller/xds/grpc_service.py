"""How Envoy calls a gRPC service of ours."""

from collections.abc import Mapping
from datetime import timedelta

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts
from envoy_data_plane.google.protobuf import Any

RETRY_ON = "connect-failure,refused-stream,unavailable,reset"


def grpc_service(
    cluster: str, retry: core.RetryPolicy | None = None, metadata: Mapping[str, str] | None = None
) -> core.GrpcService:
    """The service behind `cluster`; each call carries `metadata`."""
    return core.GrpcService(
        envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=cluster, skip_envoy_headers=True),
        initial_metadata=[core.HeaderValue(key=key, value=value) for key, value in (metadata or {}).items()],
        retry_policy=retry,
    )


def other_endpoints(retries: int) -> core.RetryPolicy:
    """Up to `retries` further endpoints, each another one than before, at once."""
    return core.RetryPolicy(
        retry_on=RETRY_ON,
        num_retries=retries,
        retry_back_off=core.BackoffStrategy(
            base_interval=timedelta(milliseconds=1), max_interval=timedelta(milliseconds=10)
        ),
        retry_host_predicate=[
            core.RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=Any.pack(previous_hosts.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=5,
    )
