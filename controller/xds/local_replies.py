"""The errors that Envoy answers itself, in the shape that OpenAI's clients understand.

An engine's answers are not touched, nor are a worker's: they carry no details that a rule here looks for.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel import v3 as cel
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.google.protobuf import Any

from controller.xds.plane import UNDECIDED_ROUTE
from extproc.state.envoy import REASON_HEADER


@dataclass(frozen=True, slots=True)
class LocalReply:
    """One error of Envoy: `when` is a CEL expression over Envoy's attributes, the status is Envoy's own."""

    statuses: tuple[int, ...]
    type: Literal["invalid_request_error", "service_unavailable_error", "server_error"]
    message: str
    when: str
    becomes: int | None = None
    """A status in place of Envoy's own."""


def _details(*prefixes: str) -> str:
    return " || ".join(f"response.code_details.startsWith('{prefix}')" for prefix in prefixes)


REPLIES: Mapping[str, LocalReply] = MappingProxyType(
    {
        "headers-too-large": LocalReply(
            statuses=(431,),
            # Envoy says 503 where there is room for the client's headers, but not for ours.
            becomes=431,
            type="invalid_request_error",
            message="The request headers exceed Envoy's limit; send fewer or shorter ones.",
            when=_details(
                "http1.headers_too_large", "http1.too_many_headers", "header_mutation_result_exceeds_limit"
            ),
        ),
        "bad-request": LocalReply(
            statuses=(400,),
            type="invalid_request_error",
            message="The request is not valid HTTP.",
            when=f"{_details('http1.', 'http2.', 'missing_host_header')} || "
            # The same details go with a redirect to a path without escaped slashes.
            f"(response.code == 400 && {_details('path_normalization_failed')})",
        ),
        "body-too-large": LocalReply(
            statuses=(413,),
            type="invalid_request_error",
            message="The request body exceeds the configured limit.",
            when=_details("request_payload_too_large"),
        ),
        "router-unavailable": LocalReply(
            statuses=(503, 504),
            type="service_unavailable_error",
            message="No ext_proc worker decided where the request goes; try again.",
            when=f"(xds.route_name == '{UNDECIDED_ROUTE}' && {_details('no_healthy_upstream')}) || "
            + _details(
                "ext_proc_error", "mismatch_between_content_length", "cluster_not_found", "route_not_found"
            ),
        ),
        "upstream-timeout": LocalReply(
            statuses=(504,),
            type="server_error",
            message="The model server did not begin to answer in time.",
            when=_details(
                "upstream_per_try_timeout",
                "stream_idle_timeout",
                "max_duration_timeout",
            ),
        ),
        "no-partner": LocalReply(
            statuses=(502,),
            type="service_unavailable_error",
            message="No pod that can receive the prompt's KV cache could be reached; try again.",
            # Only `transfers.lua` answers by script.
            when=_details("lua_response"),
        ),
        "upstream-unavailable": LocalReply(
            statuses=(502, 503),
            type="service_unavailable_error",
            message="No pod of the model server could be reached; try again.",
            when=_details("no_healthy_upstream", "upstream_reset_before_response_started"),
        ),
    }
)
"""Reason (the value of x-kvoy-reason) to the error. The first rule that holds decides."""


def local_replies() -> hcm.LocalReplyConfig:
    """All of REPLIES as Envoy's mappers."""
    return hcm.LocalReplyConfig(mappers=[_mapper(reason, reply) for reason, reply in REPLIES.items()])


def _mapper(reason: str, reply: LocalReply) -> hcm.ResponseMapper:
    expression = cel.ExpressionFilter(expression=reply.when)
    return hcm.ResponseMapper(
        filter=accesslog.AccessLogFilter(
            extension_filter=accesslog.ExtensionFilter(
                name="envoy.access_loggers.extension_filters.cel", typed_config=Any.pack(expression)
            )
        ),
        status_code=reply.becomes,
        headers_to_add=[core.HeaderValueOption(header=core.HeaderValue(key=REASON_HEADER, value=reason))],
        body_format_override=core.SubstitutionFormatString(
            text_format_source=core.DataSource(inline_string=_body(reason, reply)),
            content_type="application/json",
        ),
    )


def _body(reason: str, reply: LocalReply) -> str:
    code = reason.replace("-", "_")
    return json.dumps({"error": {"message": reply.message, "type": reply.type, "param": None, "code": code}})
