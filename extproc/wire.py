"""Envoy's protobuf messages <-> our events and answers: the one place that knows protobuf.

Messages are upb (package xds-protos). Header values travel as `raw_value`: Envoy fills it and reads it, and
bytes that are not UTF-8 must not break a request.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2
from google.protobuf.message import DecodeError

from extproc.accesslog import Entry
from extproc.control import HEADER_NAMES, HEADER_PREFIX
from extproc.exchange import (
    Answer,
    AskForBody,
    BodyMode,
    BodyReceived,
    Event,
    HeadersReceived,
    KeepWaiting,
    LeaveToWatch,
    LocalAnswer,
    PassTrailers,
    RouteOnBody,
    RouteOnHeaders,
    Routing,
    SendChunk,
    TrailersReceived,
    Transferred,
)
from extproc.request import Head, bare
from extproc.state import envoy

_Request = external_processor_pb2.ProcessingRequest
_Response = external_processor_pb2.ProcessingResponse
_Mode = processing_mode_pb2.ProcessingMode
_NOTED = HEADER_NAMES | {
    ":method",
    ":path",
    "content-type",
    "x-request-id",
    envoy.CLIENT_REQUEST_ID_HEADER,
}
_PREFIX_RAW = HEADER_PREFIX.encode()
_LONGEST_REQUEST_ID = 256
"""Characters that are kept of an id that a client chose."""
_LARGEST_COUNT = 2.0**53
"""Doubles hold every integer below it."""
_BROKEN_OFF = ("upstream_reset_after_response_started", "stream_idle_timeout", "max_duration_timeout")
_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


class Malformed(Exception):
    """Bytes that are not the message they should be, or a message this service does not take."""


def decode(raw: bytes, wanted: frozenset[str]) -> Event:
    """A message of the ext_proc stream; of the headers only `wanted` ones are kept. Raises `Malformed`."""
    try:
        message = _Request.FromString(raw)
    except DecodeError as error:
        raise Malformed(f"not a ProcessingRequest: {error}") from error
    match message.WhichOneof("request"):
        case "request_headers":
            return _headers(message, wanted, raw)
        case "request_body":
            body = message.request_body
            return BodyReceived(body.body, body.end_of_stream)
        case "request_trailers":
            return TrailersReceived()
        case other:
            raise Malformed(f"unexpected {other or 'empty message'}: configure ext_proc to skip responses")


def _headers(message: Any, wanted: frozenset[str], raw: bytes) -> HeadersReceived:
    http = message.request_headers
    noted: dict[str, str] = {}
    kept: dict[str, str] = {}
    for header in http.headers.headers:
        key = header.key
        if key in _NOTED:
            noted[key] = _text(header)
        if key in wanted and key not in kept:
            kept[key] = _text(header)
    duplex = message.protocol_config.request_body_mode == _Mode.FULL_DUPLEX_STREAMED
    mode = BodyMode.FULL_DUPLEX if duplex else BodyMode.BUFFERED
    head = Head(
        method=noted.get(":method", ""),
        path=bare(noted.get(":path", "")),
        headers=kept,
        request_id=noted.get("x-request-id", ""),
        client_request_id=noted.get(envoy.CLIENT_REQUEST_ID_HEADER, "")[:_LONGEST_REQUEST_ID],
        control=_steering(http, noted, raw),
        json=_may_be_json(noted.get("content-type", "")),
    )
    return HeadersReceived(head, http.end_of_stream, mode)


def _steering(http: Any, noted: dict[str, str], raw: bytes) -> tuple[str, ...]:
    """Names of headers that steer an engine. Looking at each one costs more than searching `raw` first."""
    if HEADER_NAMES.isdisjoint(noted) and _PREFIX_RAW not in raw:
        return ()
    keys = [header.key for header in http.headers.headers]
    return tuple(key for key in keys if key in HEADER_NAMES or key.startswith(HEADER_PREFIX))


@lru_cache(maxsize=256)
def _may_be_json(content_type: str) -> bool:
    """Whether an engine would read the body as JSON: it does without a type, too."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("", "application/json") or kind.endswith("+json")


def _text(header: Any) -> str:
    raw: bytes = header.raw_value
    return raw.decode("utf-8", "replace") if raw else header.value


class Encoder:
    """Answers -> bytes. `worker` and `instance` are stamped on each routed request for its log entry."""

    def __init__(self, worker: str, instance: str) -> None:
        self._worker = worker
        self._instance = instance
        self._ask_for_body = _bytes(_Response(request_headers={}))
        self._leave_to_watch = _left_to_watch()
        self._pass_trailers = _bytes(_Response(request_trailers={}))

    def encode(self, answer: Answer) -> bytes:
        match answer:
            case AskForBody():
                return self._ask_for_body
            case KeepWaiting(seconds):
                return _keep_waiting(seconds)
            case LeaveToWatch():
                return self._leave_to_watch
            case RouteOnBody(routing):
                return self._routed_body(routing)
            case RouteOnHeaders(routing, mode):
                return self._routed_headers(routing, mode)
            case LocalAnswer():
                return _immediate(answer)
            case SendChunk(chunk, last):
                return _chunk(chunk, last)
            case PassTrailers():
                return self._pass_trailers

    def _routed_body(self, routing: Routing) -> bytes:
        response = _Response()
        common = response.request_body.response
        self._route(response, common, routing)
        if routing.body is not None:
            common.body_mutation.body = routing.body
            # Envoy answers 500 when a mutated body and content-length disagree.
            _set(common.header_mutation, "content-length", str(len(routing.body)))
        return _bytes(response)

    def _routed_headers(self, routing: Routing, mode: BodyMode) -> bytes:
        response = _Response()
        self._route(response, response.request_headers.response, routing)
        if mode is BodyMode.BUFFERED:
            # The body is of no interest: let it stream past instead of filling a buffer.
            response.mode_override.request_body_mode = _Mode.NONE
        return _bytes(response)

    def _route(self, response: Any, common: Any, routing: Routing) -> None:
        destinations = routing.placement.destinations
        common.clear_route_cache = True
        _set(common.header_mutation, envoy.CLUSTER_HEADER, routing.cluster)
        _set(common.header_mutation, envoy.DESTINATION, destinations)
        rank = routing.placement.chosen.endpoint.rank
        if rank is not None:
            _set(common.header_mutation, envoy.RANK_HEADER, str(rank))
        for name, value in routing.headers:
            _set(common.header_mutation, name, value)
        if routing.removed:
            ours = {option.header.key for option in common.header_mutation.set_headers}
            common.header_mutation.remove_headers.extend(n for n in routing.removed if n not in ours)
        fields = response.dynamic_metadata.fields
        fields[envoy.LB_NAMESPACE].struct_value.fields[envoy.DESTINATION].string_value = destinations
        own = fields[envoy.KVOY_NAMESPACE].struct_value.fields
        own[envoy.WORKER_KEY].string_value = self._worker
        own[envoy.INSTANCE_KEY].string_value = self._instance
        own[envoy.RESERVATION_KEY].number_value = routing.reservation
        own[envoy.DECISION_KEY].string_value = routing.placement.headline()
        if routing.transferred is not None:
            _tell(own[envoy.TRANSFER_KEY].struct_value.fields, routing.transferred)


def _tell(fields: Any, transferred: Transferred) -> None:
    fields["start"].number_value = transferred.start
    fields["length"].number_value = transferred.length
    # With a comma at both ends, so that an address is found by itself and never within another one.
    fields["partners"].string_value = f",{','.join(transferred.partners)},"
    fields["tries"].number_value = transferred.tries
    fields["needed"].bool_value = transferred.needed


def _left_to_watch() -> bytes:
    response = _Response()
    _set(response.request_body.response.header_mutation, envoy.WATCH_HEADER, "1")
    return _bytes(response)


def _keep_waiting(seconds: float) -> bytes:
    response = _Response()
    response.override_message_timeout.FromMicroseconds(int(seconds * 1e6))
    return _bytes(response)


def _set(mutation: Any, name: str, value: str) -> None:
    option = mutation.set_headers.add()
    option.header.key = name
    option.header.raw_value = value.encode()
    option.append_action = _OVERWRITE


def _immediate(answer: LocalAnswer) -> bytes:
    response = _Response()
    immediate = response.immediate_response
    immediate.status.code = answer.status
    immediate.body = answer.body
    for name, value in answer.headers:
        _set(immediate.headers, name, value)
    return _bytes(response)


def _chunk(chunk: bytes, last: bool) -> bytes:
    response = _Response()
    streamed = response.request_body.response.body_mutation.streamed_response
    streamed.body = chunk
    streamed.end_of_stream = last
    return _bytes(response)


def _bytes(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


def entries(raw: bytes) -> Iterator[Entry]:
    """The HTTP entries of one access-log message. Raises `Malformed`."""
    try:
        message = als_pb2.StreamAccessLogsMessage.FromString(raw)
    except DecodeError as error:
        raise Malformed(f"not a StreamAccessLogsMessage: {error}") from error
    for log in message.http_logs.log_entry:
        yield _entry(log)


def _entry(log: Any) -> Entry:
    common = log.common_properties
    spaces = common.metadata.filter_metadata
    own = spaces[envoy.KVOY_NAMESPACE].fields if envoy.KVOY_NAMESPACE in spaces else {}
    usage = spaces[envoy.USAGE_NAMESPACE].fields if envoy.USAGE_NAMESPACE in spaces else {}
    flags = common.response_flags
    remote = common.upstream_remote_address.socket_address
    return Entry(
        instance=own[envoy.INSTANCE_KEY].string_value if envoy.INSTANCE_KEY in own else "",
        reservation=_count(own, envoy.RESERVATION_KEY),
        request_id=log.request.request_id,
        status=log.response.response_code.value,
        client_gone=flags.downstream_connection_termination or flags.downstream_remote_reset,
        # Envoy sets no response flag for a reset after the first byte.
        broken=log.response.response_code_details.startswith(_BROKEN_OFF),
        served=_address(remote.address, remote.port_value) if remote.address else "",
        first_byte_s=_seconds(common, "time_to_first_upstream_rx_byte"),
        duration_s=_seconds(common, "time_to_last_downstream_tx_byte"),
        prompt_tokens=_count(usage, envoy.PROMPT_TOKENS_KEY),
        completion_tokens=_count(usage, envoy.COMPLETION_TOKENS_KEY),
        cached_tokens=_count(usage, envoy.CACHED_TOKENS_KEY) if envoy.CACHED_TOKENS_KEY in usage else None,
    )


@lru_cache(maxsize=4096)
def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _seconds(common: Any, name: str) -> float | None:
    if not common.HasField(name):
        return None
    value = getattr(common, name)
    seconds: float = value.seconds + value.nanos / 1e9
    return seconds


def _count(fields: Any, key: str) -> int:
    """A count from metadata; 0 where it is absent or no count: an engine can say anything."""
    value = fields[key].number_value if key in fields else 0.0
    return int(value) if 0 <= value < _LARGEST_COUNT else 0
