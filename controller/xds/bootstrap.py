"""What Envoy is started with: who it is, where it gets its configuration, where it is administered."""

from datetime import timedelta

from envoy_data_plane.envoy.config.bootstrap import v3 as bootstrap_v3
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.overload import v3 as overload
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections import v3 as connections
from envoy_data_plane.google.protobuf import Any

from controller.xds import address
from controller.xds.workers import socket_cluster

XDS_CLUSTER = "kvoy-xds"
MAX_CONNECTIONS = 50_000
"""Client connections above this many are closed as they come."""


def bootstrap(*, xds_socket: str, node_id: str, admin: str) -> str:
    """Envoy's bootstrap as JSON.

    `xds_socket` is the controller's Unix socket, `admin` is ``ip:port`` or ``unix:PATH``; raises ValueError
    if it is neither.
    """
    ads = core.ConfigSource(ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3)
    return bootstrap_v3.Bootstrap(
        node=core.Node(id=node_id, cluster="kvoy"),
        admin=bootstrap_v3.Admin(address=address.admin(admin)),
        static_resources=bootstrap_v3.BootstrapStaticResources(
            clusters=[socket_cluster(XDS_CLUSTER, (xds_socket,))]
        ),
        dynamic_resources=bootstrap_v3.BootstrapDynamicResources(
            ads_config=_controller(), cds_config=ads, lds_config=ads
        ),
        overload_manager=overload.OverloadManager(resource_monitors=[_connection_limit()]),
    ).to_json(indent=2)


def _controller() -> core.ApiConfigSource:
    """While the controller is away Envoy serves what it has and asks again at least once a second."""
    again = core.BackoffStrategy(base_interval=timedelta(milliseconds=100), max_interval=timedelta(seconds=1))
    service = core.GrpcService(
        envoy_grpc=core.GrpcServiceEnvoyGrpc(
            cluster_name=XDS_CLUSTER, retry_policy=core.RetryPolicy(retry_back_off=again)
        )
    )
    return core.ApiConfigSource(
        api_type=core.ApiConfigSourceApiType.GRPC,
        transport_api_version=core.ApiVersion.V3,
        grpc_services=[service],
        set_node_on_first_message_only=True,
    )


def _connection_limit() -> overload.ResourceMonitor:
    return overload.ResourceMonitor(
        name="envoy.resource_monitors.global_downstream_max_connections",
        typed_config=Any.pack(
            connections.DownstreamConnectionsConfig(max_active_downstream_connections=MAX_CONNECTIONS)
        ),
    )
