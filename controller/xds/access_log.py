"""The access log: one gRPC logger per worker, so that an entry reaches the worker that decided."""

from datetime import timedelta

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.access_loggers.grpc import v3 as grpc_logger
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any

from controller.xds.grpc_service import grpc_service
from controller.xds.plane import worker_cluster_name
from extproc.state import envoy

FLUSH_INTERVAL = timedelta(milliseconds=10)
"""How long an entry may wait for company: by so much a count in flight is released late."""


CLIENT_LEFT = ["DC", "DR"]
"""Envoy's flags of a request whose client closed the connection (HTTP/1) or reset the stream (HTTP/2)."""


def worker_log(worker: str) -> accesslog.AccessLog:
    """Sends `worker` an entry at the end of each request that it decided, as far as that is known.

    A client that leaves while the decision is on its way to Envoy leaves an entry without the worker's name:
    so requests that clients gave up are told to every worker, and the one that knows the request acts.
    """
    config = grpc_logger.HttpGrpcAccessLogConfig(
        common_config=grpc_logger.CommonGrpcAccessLogConfig(
            log_name=worker,
            grpc_service=grpc_service(worker_cluster_name(worker)),
            transport_api_version=core.ApiVersion.V3,
            buffer_flush_interval=FLUSH_INTERVAL,
        )
    )
    return accesslog.AccessLog(
        name="envoy.access_loggers.http_grpc", filter=_concerns(worker), typed_config=Any.pack(config)
    )


def _concerns(worker: str) -> accesslog.AccessLogFilter:
    given_up = accesslog.ResponseFlagFilter(flags=CLIENT_LEFT)
    return accesslog.AccessLogFilter(
        or_filter=accesslog.OrFilter(
            filters=[_decided_by(worker), accesslog.AccessLogFilter(response_flag_filter=given_up)]
        )
    )


def _decided_by(worker: str) -> accesslog.AccessLogFilter:
    value = matcher.ValueMatcher(string_match=matcher.StringMatcher(exact=worker))
    key = matcher.MetadataMatcher(
        filter=envoy.KVOY_NAMESPACE,
        path=[matcher.MetadataMatcherPathSegment(key=envoy.WORKER_KEY)],
        value=value,
    )
    return accesslog.AccessLogFilter(
        metadata_filter=accesslog.MetadataFilter(matcher=key, match_if_key_not_found=False)
    )
