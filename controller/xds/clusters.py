"""The clusters that requests go to: one per ModelServer, and one that leads nowhere."""

from collections.abc import Iterable
from datetime import timedelta

from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request import v3 as least_request
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host import v3 as override_host
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as http
from envoy_data_plane.envoy.type.metadata import v3 as metadata
from envoy_data_plane.google.protobuf import Any

from controller.xds.extension import extension
from controller.xds.plane import NOWHERE_CLUSTER
from controller.xds.tls import tls_socket
from controller.xds.transfers import transfer_filters
from extproc.state import envoy
from extproc.state.records import ModelServer

CONNECT_TIMEOUT = timedelta(seconds=1)
UNLIMITED = 100_000
"""Circuit breaker: far above what one Envoy carries, so that only kvoy limits load."""

# Engines served by uvicorn close an idle connection after 5 s; Envoy does so first, or a request would now
# and then meet the closing connection.
ENGINE_IDLE = timedelta(seconds=4)


def model_cluster(server: ModelServer) -> cluster.Cluster:
    """The pods of a ModelServer, tried in the order that the worker lists in the request's metadata."""
    return cluster.Cluster(
        name=server.cluster,
        type=cluster.ClusterDiscoveryType.EDS,
        eds_cluster_config=cluster.ClusterEdsClusterConfig(
            eds_config=core.ConfigSource(
                ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3
            ),
        ),
        connect_timeout=CONNECT_TIMEOUT,
        load_balancing_policy=_in_listed_order(),
        circuit_breakers=breakers(),
        typed_extension_protocol_options=http_protocol(
            http.HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=core.Http1ProtocolOptions()),
            idle_timeout=ENGINE_IDLE,
            filters=transfer_filters() if server.disaggregation else (),
        ),
        upstream_connection_options=cluster.UpstreamConnectionOptions(
            tcp_keepalive=core.TcpKeepalive(keepalive_probes=3, keepalive_time=30, keepalive_interval=5)
        ),
        transport_socket=None if server.tls is None else tls_socket(server.tls),
    )


def nowhere_cluster() -> cluster.Cluster:
    """No endpoints: a request routed here is answered with 503.

    A direct response would do the same, but Envoy then ignores the virtual host's body limit.
    """
    return cluster.Cluster(
        name=NOWHERE_CLUSTER,
        type=cluster.ClusterDiscoveryType.STATIC,
        load_assignment=endpoint.ClusterLoadAssignment(cluster_name=NOWHERE_CLUSTER),
    )


def breakers() -> cluster.CircuitBreakers:
    """Circuit breakers that never trip; Envoy's default of 1024 requests does."""
    return cluster.CircuitBreakers(
        thresholds=[
            cluster.CircuitBreakersThresholds(
                max_connections=UNLIMITED,
                max_pending_requests=UNLIMITED,
                max_requests=UNLIMITED,
                max_retries=UNLIMITED,
            )
        ]
    )


def http_protocol(
    protocol: http.HttpProtocolOptionsExplicitHttpConfig,
    idle_timeout: timedelta | None = None,
    filters: Iterable[hcm.HttpFilter] = (),
) -> dict[str, Any]:
    """Which HTTP version is spoken to a cluster's endpoints, and which filters each attempt passes."""
    options = http.HttpProtocolOptions(
        explicit_http_config=protocol,
        common_http_protocol_options=core.HttpProtocolOptions(idle_timeout=idle_timeout),
        http_filters=list(filters),
    )
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Any.pack(options)}


def http2_protocol() -> dict[str, Any]:
    """HTTP/2 without TLS: what gRPC speaks on a Unix socket."""
    return http_protocol(
        http.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=core.Http2ProtocolOptions())
    )


def _in_listed_order() -> cluster.LoadBalancingPolicy:
    """First try and retries go down the list; what is not in the cluster is skipped. Only metadata is read:
    a header would be the client's to set.
    """
    policy = override_host.OverrideHost(
        override_host_sources=[
            override_host.OverrideHostOverrideHostSource(metadata=_key(envoy.DESTINATION))
        ],
        selected_host_key=_key(envoy.DESTINATION_SERVED),
        fallback_policy=_policies("least_request", least_request.LeastRequest()),
    )
    return _policies("override_host", policy)


def _policies(
    name: str, config: override_host.OverrideHost | least_request.LeastRequest
) -> cluster.LoadBalancingPolicy:
    typed = extension(f"envoy.load_balancing_policies.{name}", config)
    return cluster.LoadBalancingPolicy(
        policies=[cluster.LoadBalancingPolicyPolicy(typed_extension_config=typed)]
    )


def _key(key: str) -> metadata.MetadataKey:
    return metadata.MetadataKey(key=envoy.LB_NAMESPACE, path=[metadata.MetadataKeyPathSegment(key=key)])
