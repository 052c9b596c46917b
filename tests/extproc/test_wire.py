from contextlib import suppress

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from extproc.accesslog import Entry
from extproc.exchange import (
    AskForBody,
    BodyMode,
    BodyReceived,
    HeadersReceived,
    LocalAnswer,
    PassTrailers,
    RouteOnBody,
    RouteOnHeaders,
    Routing,
    SendChunk,
    TrailersReceived,
)
from extproc.request import Head
from extproc.testing import a_placement
from extproc.wire import Encoder, Malformed, decode, entries

Request = external_processor_pb2.ProcessingRequest
Response = external_processor_pb2.ProcessingResponse
Mode = processing_mode_pb2.ProcessingMode

PLACEMENT = a_placement("10.0.0.1:8000", "10.0.0.2:80")
ENCODER = Encoder("extproc-0", "host/extproc-0/abcd")


def headers_message(*pairs: tuple[str, bytes], last: bool = False, mode: int = Mode.BUFFERED) -> bytes:
    message = Request(protocol_config={"request_body_mode": mode})
    message.request_headers.end_of_stream = last
    for name, value in pairs:
        message.request_headers.headers.headers.add(key=name, raw_value=value)
    return message.SerializeToString()


def headers_set(common: external_processor_pb2.CommonResponse) -> dict[str, str]:
    options = common.header_mutation.set_headers
    assert all(o.append_action == base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD for o in options)
    return {option.header.key: option.header.raw_value.decode() for option in options}


def routing(body: bytes | None = None) -> Routing:
    return Routing("model/default/s", PLACEMENT, 42, body)


def test_headers_keep_what_is_wanted_and_the_path_loses_its_query() -> None:
    raw = headers_message(
        (":method", b"POST"),
        (":path", b"/v1/chat/completions?x=1"),
        ("x-request-id", b"abc"),
        ("user-type", b"premium"),
        ("user-type", b"second"),
        ("authorization", b"secret"),
    )

    event = decode(raw, frozenset({"user-type"}))

    assert isinstance(event, HeadersReceived)
    assert (event.head.method, event.head.path, event.head.request_id) == (
        "POST",
        "/v1/chat/completions",
        "abc",
    )
    assert event.head.headers == {"user-type": "premium"}
    assert (event.last, event.mode) == (False, BodyMode.BUFFERED)


def test_the_first_message_says_the_body_mode() -> None:
    event = decode(headers_message(mode=Mode.FULL_DUPLEX_STREAMED, last=True), frozenset())

    assert isinstance(event, HeadersReceived)
    assert (event.last, event.mode) == (True, BodyMode.FULL_DUPLEX)


def a_head_of(*pairs: tuple[str, bytes]) -> Head:
    event = decode(headers_message(*pairs), frozenset())
    assert isinstance(event, HeadersReceived)
    return event.head


def test_the_client_may_have_called_its_request_otherwise() -> None:
    head = a_head_of(("x-request-id", b"ours"), ("x-kvoy-client-request-id", b"theirs" + b"x" * 300))

    assert (head.request_id, head.client_request_id) == ("ours", "theirs" + "x" * 250)
    assert a_head_of(("x-request-id", b"ours")).client_request_id == ""


def test_headers_that_steer_an_engine_are_noted() -> None:
    head = a_head_of(
        ("x-override-bootstrap-host", b"10.0.0.9"),
        ("x-override-", b""),
        ("x-overridden", b""),
        ("x-data-parallel-rank", b"1"),
        ("x-data-parallel-rank-of-mine", b"1"),
        ("x-kv-cache-source-host-port", b"10.0.0.9:80"),
        ("x-vllm-priority", b"-9"),
        ("authorization", b"secret"),
    )

    assert head.control == (
        "x-override-bootstrap-host",
        "x-override-",
        "x-data-parallel-rank",
        "x-kv-cache-source-host-port",
        "x-vllm-priority",
    )
    assert head.headers == {}


def test_a_header_that_steers_and_that_a_rule_looks_at_is_both() -> None:
    event = decode(headers_message(("x-vllm-priority", b"1")), frozenset({"x-vllm-priority", "content-type"}))

    assert isinstance(event, HeadersReceived)
    assert (event.head.control, event.head.headers) == (("x-vllm-priority",), {"x-vllm-priority": "1"})


@pytest.mark.parametrize(
    ("content_type", "json"),
    [
        (b"application/json", True),
        (b"Application/JSON ; charset=utf-8", True),
        (b"application/problem+json;a=b", True),
        (b"application/vnd.x+JSON", True),
        (b"", True),
        (b"text/plain", False),
        (b"application/jsonl", False),
        (b"multipart/form-data; boundary=application/json", False),
        (b"application/octet-stream", False),
        (b"\xff", False),
    ],
)
def test_the_type_says_whether_the_body_may_be_json(content_type: bytes, json: bool) -> None:
    assert a_head_of(("content-type", content_type)).json is json


def test_a_body_without_a_type_may_be_json() -> None:
    assert a_head_of((":method", b"POST")).json


def test_header_values_that_are_not_utf8_do_no_harm() -> None:
    event = decode(headers_message(("x", b"\xff\xfe")), frozenset({"x"}))

    assert isinstance(event, HeadersReceived)
    assert event.head.headers == {"x": "\ufffd\ufffd"}


def test_ten_thousand_headers_are_read() -> None:
    many = [(f"h-{at}", b"v") for at in range(10_000)]

    event = decode(headers_message(*many, (":path", b"/p")), frozenset({"h-7"}))

    assert isinstance(event, HeadersReceived)
    assert (event.head.path, event.head.headers) == ("/p", {"h-7": "v"})


def test_body_and_trailers() -> None:
    body = Request(request_body={"body": b"abc", "end_of_stream": True}).SerializeToString()
    trailers = Request(request_trailers={}).SerializeToString()

    assert decode(body, frozenset()) == BodyReceived(b"abc", last=True)
    assert decode(trailers, frozenset()) == TrailersReceived()


@pytest.mark.parametrize(
    "raw",
    [b"\xff\xff\xff", b"", Request(response_headers={}).SerializeToString()],
    ids=["junk", "empty", "response"],
)
def test_other_messages_are_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        decode(raw, frozenset())


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_decoded_or_refused(raw: bytes) -> None:
    with suppress(Malformed):
        decode(raw, frozenset({"x"}))
    with suppress(Malformed):
        list(entries(raw))


def test_asking_for_the_body_answers_the_headers() -> None:
    assert Response.FromString(ENCODER.encode(AskForBody())).WhichOneof("response") == "request_headers"


def test_a_routed_body_names_cluster_endpoints_and_reservation() -> None:
    response = Response.FromString(ENCODER.encode(RouteOnBody(routing())))
    common = response.request_body.response

    assert common.clear_route_cache
    assert headers_set(common) == {
        "x-kvoy-cluster": "model/default/s",
        "x-gateway-destination-endpoint": "10.0.0.1:8000,10.0.0.2:80",
    }
    assert not common.HasField("body_mutation")
    spaces = response.dynamic_metadata.fields
    assert dict(spaces["envoy.lb"].struct_value) == {
        "x-gateway-destination-endpoint": "10.0.0.1:8000,10.0.0.2:80"
    }
    assert dict(spaces["kvoy"].struct_value) == {
        "worker": "extproc-0",
        "instance": "host/extproc-0/abcd",
        "reservation": 42.0,
        "decision": PLACEMENT.headline(),
    }


def test_a_data_parallel_rank_is_named_in_a_header() -> None:
    one_rank = Routing("model/default/s", a_placement("10.0.0.1:8000", rank=1), 42, None)
    common = Response.FromString(ENCODER.encode(RouteOnBody(one_rank))).request_body.response

    assert headers_set(common)["x-data-parallel-rank"] == "1"


def test_an_engine_that_tells_nothing_of_its_cache_is_not_taken_for_a_cold_one() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    logs = [{"common_properties": {"metadata": {"filter_metadata": {"llm": usage}}}}]
    told = [{"common_properties": {"metadata": {"filter_metadata": {"llm": {**usage, "cached_tokens": 0}}}}}]

    assert next(entries(log_message(*logs))).cached_tokens is None
    assert next(entries(log_message(*told))).cached_tokens == 0


def test_an_edited_body_comes_with_its_length() -> None:
    common = Response.FromString(ENCODER.encode(RouteOnBody(routing(b"edited")))).request_body.response

    assert common.body_mutation.body == b"edited"
    assert headers_set(common)["content-length"] == "6"


@pytest.mark.parametrize(("mode", "overridden"), [(BodyMode.BUFFERED, True), (BodyMode.FULL_DUPLEX, False)])
def test_routing_on_headers_stops_buffering(mode: BodyMode, overridden: bool) -> None:
    response = Response.FromString(ENCODER.encode(RouteOnHeaders(routing(), mode)))

    assert headers_set(response.request_headers.response)["x-kvoy-cluster"] == "model/default/s"
    assert response.HasField("mode_override") is overridden
    assert response.mode_override.request_body_mode == Mode.NONE


def test_a_local_answer_is_immediate() -> None:
    answer = LocalAnswer(
        404, (("content-type", "application/json"), ("x-kvoy-reason", "unknown-model")), b"{}"
    )

    immediate = Response.FromString(ENCODER.encode(answer)).immediate_response

    assert (immediate.status.code, immediate.body) == (404, b"{}")
    sent = {option.header.key: option.header.raw_value for option in immediate.headers.set_headers}
    assert sent == {"content-type": b"application/json", "x-kvoy-reason": b"unknown-model"}


def test_chunks_and_trailers_of_full_duplex() -> None:
    chunk = Response.FromString(ENCODER.encode(SendChunk(b"abc", last=True))).request_body.response
    trailers = Response.FromString(ENCODER.encode(PassTrailers()))

    streamed = chunk.body_mutation.streamed_response
    assert (streamed.body, streamed.end_of_stream) == (b"abc", True)
    assert trailers.WhichOneof("response") == "request_trailers"


def log_message(*logs: dict[str, object]) -> bytes:
    message = als_pb2.StreamAccessLogsMessage()
    return ParseDict({"http_logs": {"log_entry": list(logs)}}, message).SerializeToString()


OWN = {"instance": "i", "reservation": 7.0, "worker": "extproc-0"}


def test_an_entry_carries_what_settling_needs() -> None:
    raw = log_message(
        {
            "common_properties": {
                "metadata": {
                    "filter_metadata": {
                        "kvoy": OWN,
                        "llm": {"prompt_tokens": 12.0, "completion_tokens": 3.0, "cached_tokens": 8.0},
                    }
                },
                "upstream_remote_address": {"socket_address": {"address": "10.0.0.2", "port_value": 8000}},
                "time_to_first_upstream_rx_byte": "0.25s",
                "time_to_last_downstream_tx_byte": "2s",
            },
            "request": {"request_id": "request-1"},
            "response": {"response_code": 200},
        }
    )

    assert list(entries(raw)) == [
        Entry(
            instance="i",
            reservation=7,
            request_id="request-1",
            status=200,
            client_gone=False,
            broken=False,
            served="10.0.0.2:8000",
            first_byte_s=0.25,
            duration_s=2.0,
            prompt_tokens=12,
            completion_tokens=3,
            cached_tokens=8,
        )
    ]


def test_a_client_that_left_early_has_no_times_and_no_usage() -> None:
    raw = log_message(
        {
            "common_properties": {
                "metadata": {"filter_metadata": {"kvoy": OWN}},
                "response_flags": {"downstream_connection_termination": True},
            }
        }
    )

    (entry,) = entries(raw)

    assert entry.client_gone
    assert (entry.status, entry.served, entry.first_byte_s, entry.duration_s, entry.prompt_tokens) == (
        0, "", None, None, 0,
    )  # fmt: skip


def test_an_entry_of_a_request_whose_decision_never_arrived_names_only_the_request() -> None:
    raw = log_message({"common_properties": {}, "request": {"request_id": "request-1"}})

    (entry,) = entries(raw)

    assert (entry.instance, entry.reservation, entry.request_id) == ("", 0, "request-1")


@pytest.mark.parametrize(
    ("details", "broken"),
    [("via_upstream", False), ("upstream_reset_after_response_started{connection_termination}", True)],
)
def test_the_details_tell_whether_the_answer_broke_off(details: str, broken: bool) -> None:
    (entry,) = entries(log_message({"response": {"response_code_details": details}}))

    assert entry.broken is broken


@pytest.mark.parametrize("count", [float("inf"), float("nan"), -1.0, 1e300, 2.0**53])
def test_counts_that_are_none_read_as_zero(count: float) -> None:
    message = als_pb2.StreamAccessLogsMessage()
    spaces = message.http_logs.log_entry.add().common_properties.metadata.filter_metadata
    spaces["llm"].fields["prompt_tokens"].number_value = count
    spaces["kvoy"].fields["reservation"].number_value = count

    (entry,) = entries(message.SerializeToString())

    assert (entry.prompt_tokens, entry.reservation) == (0, 0)


@pytest.mark.parametrize(
    ("path", "bare"),
    [
        (b"/v1/chat/completions/", "/v1/chat/completions"),
        (b"/v1/chat/completions//?a=/", "/v1/chat/completions"),
        (b"/", "/"),
        (b"", "/"),
    ],
)
def test_a_trailing_slash_changes_nothing(path: bytes, bare: str) -> None:
    event = decode(headers_message((":path", path)), frozenset())

    assert isinstance(event, HeadersReceived)
    assert event.head.path == bare
