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
MAX_HEADERS = 200
"""Headers of a request, ours included."""
ESCAPED_SLASHES = hcm.HttpConnectionManagerPathWithEscapedSlashesAction.UNESCAPE_AND_REDIRECT
"""A path with ``%2F`` or ``%5C`` is answered with a redirect to the one without.

Engines take both for the same, so a worker must not see the first: no rule and no parser knows it. Forwarding
the second would leave a proxy before Envoy with another idea of the path than the engine. A refusal would
shut out clients that write ``/v1/models/org%2Fname``, as OpenAI's do; they follow a redirect.
"""


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
    """A path has one spelling (no dots, no double or escaped slashes) before anything reads it."""
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
        common_http_protocol_options=core.HttpProtocolOptions(max_headers_count=MAX_HEADERS),
        http_protocol_options=core.Http1ProtocolOptions(accept_http_10=True, default_host_for_http_10="kvoy"),
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=ESCAPED_SLASHES,
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
