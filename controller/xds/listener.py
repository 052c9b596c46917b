"""The listener that clients reach."""

from datetime import timedelta

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.google.protobuf import Any

from controller.xds.access_log import worker_log
from controller.xds.address import tcp
from controller.xds.deciders import deciders
from controller.xds.local_replies import local_replies
from controller.xds.plane import LISTENER, ROUTE_TABLE, DataPlane
from controller.xds.stripping import stripping
from controller.xds.usage import usage_filter

STREAM_IDLE_TIMEOUT = timedelta(seconds=600)
"""Longest silence of a request: while an engine queues it, prefills it, or between two chunks."""
REQUEST_HEADERS_TIMEOUT = timedelta(seconds=30)
"""A client that has not sent its headers by then is not going to."""


def public_listener(plane: DataPlane) -> listener.Listener:
    """HTTP/1.1 and HTTP/2 without TLS; raises ValueError if `plane.listen` is not an address."""
    manager = listener.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(_connections(plane))
    )
    return listener.Listener(
        name=LISTENER,
        address=tcp(plane.listen),
        per_connection_buffer_limit_bytes=min(plane.body_limit_bytes, 2**20),
        filter_chains=[listener.FilterChain(filters=[manager])],
    )


def _connections(plane: DataPlane) -> hcm.HttpConnectionManager:
    return hcm.HttpConnectionManager(
        stat_prefix="kvoy",
        codec_type=hcm.HttpConnectionManagerCodecType.AUTO,
        rds=hcm.Rds(
            config_source=core.ConfigSource(
                ads=core.AggregatedConfigSource(), resource_api_version=core.ApiVersion.V3
            ),
            route_config_name=ROUTE_TABLE,
        ),
        early_header_mutation_extensions=[stripping()],
        http_filters=[*deciders(), usage_filter(), _router()],
        access_log=[worker_log(name) for name, _ in plane.workers],
        local_reply_config=local_replies(),
        use_remote_address=True,
        generate_request_id=True,
        always_set_request_id_in_response=True,
        server_name="kvoy",
        stream_idle_timeout=STREAM_IDLE_TIMEOUT,
        request_headers_timeout=REQUEST_HEADERS_TIMEOUT,
    )


def _router() -> hcm.HttpFilter:
    return hcm.HttpFilter(
        name="envoy.filters.http.router", typed_config=Any.pack(router.Router(suppress_envoy_headers=True))
    )
