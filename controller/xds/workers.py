"""The clusters of the ext_proc workers: together to decide a request, each alone for its log entries."""

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.type import v3 as units

from controller.xds.address import pipe
from controller.xds.clusters import breakers, http2_protocol
from controller.xds.plane import (
    SECOND_CHANCE_CLUSTER,
    THIRD_CHANCE_CLUSTER,
    WORKERS_CLUSTER,
    DataPlane,
    worker_cluster_name,
)

CONNECT_TIMEOUT = timedelta(seconds=1)


def deciding_clusters(plane: DataPlane) -> tuple[cluster.Cluster, ...]:
    """All workers, and two halves of them for the second and the third chance (one worker is both halves).

    Envoy opens a connection per endpoint and thread, so the load spreads evenly.
    """
    sockets = tuple(socket for _, socket in plane.workers)
    return (
        socket_cluster(WORKERS_CLUSTER, sockets),
        socket_cluster(SECOND_CHANCE_CLUSTER, sockets[::2]),
        socket_cluster(THIRD_CHANCE_CLUSTER, sockets[1::2] or sockets),
    )


def worker_cluster(name: str, socket: str) -> cluster.Cluster:
    """One worker's socket."""
    return socket_cluster(worker_cluster_name(name), (socket,))


def socket_cluster(name: str, sockets: tuple[str, ...]) -> cluster.Cluster:
    """gRPC servers on Unix sockets, the least busy first."""
    endpoints = [endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=pipe(path))) for path in sockets]
    return cluster.Cluster(
        name=name,
        type=cluster.ClusterDiscoveryType.STATIC,
        connect_timeout=CONNECT_TIMEOUT,
        lb_policy=cluster.ClusterLbPolicy.LEAST_REQUEST,
        load_assignment=endpoint.ClusterLoadAssignment(
            cluster_name=name, endpoints=[endpoint.LocalityLbEndpoints(lb_endpoints=endpoints)]
        ),
        common_lb_config=cluster.ClusterCommonLbConfig(healthy_panic_threshold=units.Percent(value=0)),
        circuit_breakers=breakers(),
        typed_extension_protocol_options=http2_protocol(),
    )
