import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request import APIS, InferenceRequest, parse
from extproc.splice import Edit, apply, rewrite

CHAT = APIS["/v1/chat/completions"]
MESSAGES = [{"role": "user", "content": 'he said "model":"old" and {"stream_options":1}'}]


def understood(body: bytes, path: str = "/v1/chat/completions") -> InferenceRequest:
    request = parse(APIS[path], body)
    assert isinstance(request, InferenceRequest)
    return request


def rewritten(body: bytes, model: str | None = "new", *, report_usage: bool = True) -> Any:
    result = rewrite(understood(body), model, report_usage)
    return json.loads(body if result is None else result)


def test_only_the_bytes_of_the_model_change() -> None:
    body = b'{ "temperature":0.10, "model" : "old" ,"messages":[{"content":"\\"model\\":\\"old\\""}] }'

    assert rewrite(understood(body), "new", True) == body.replace(b': "old"', b': "new"', 1)


def test_an_equal_text_in_the_prompt_is_left_alone() -> None:
    body = json.dumps({"messages": MESSAGES, "metadata": {"model": "old"}, "model": "old"}).encode()

    assert rewritten(body) == {"messages": MESSAGES, "metadata": {"model": "old"}, "model": "new"}


def test_of_duplicate_models_the_one_that_counts_is_replaced() -> None:
    body = b'{"model":"first","messages":[],"model":"second"}'

    assert rewrite(understood(body), "new", False) == b'{"model":"first","messages":[],"model":"new"}'


def test_an_escaped_key_is_found() -> None:
    assert rewritten(b'{"mod\\u0065l":"old","messages":[]}') == {"model": "new", "messages": []}


@pytest.mark.parametrize("model", [None, "old"])
def test_nothing_to_change_gives_no_body(model: str | None) -> None:
    assert rewrite(understood(b'{"model":"old","messages":[]}'), model, True) is None


def test_a_new_name_is_escaped() -> None:
    assert rewritten(b'{"model":"old","messages":[]}', 'a"b\\é')["model"] == 'a"b\\é'


def test_streams_are_asked_for_usage() -> None:
    assert rewritten(b'{"model":"m","stream":true,"messages":[]}', None)["stream_options"] == {
        "include_usage": True
    }
    assert "stream_options" not in rewritten(b'{"model":"m","messages":[]}', None)
    assert "stream_options" not in rewritten(
        b'{"model":"m","stream":true,"messages":[]}', None, report_usage=False
    )


@pytest.mark.parametrize(
    ("given_options", "sent"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": None}, {"include_usage": True}),
        ({"continuous_usage_stats": True}, {"continuous_usage_stats": True, "include_usage": True}),
        ({"include_usage": {"nested": [1]}, "x": 1}, {"include_usage": True, "x": 1}),
        ("nonsense", "nonsense"),
        ([1], [1]),
    ],
)
def test_the_clients_stream_options_are_kept(given_options: object, sent: object) -> None:
    body = json.dumps(
        {"model": "m", "stream": True, "stream_options": given_options, "messages": []}
    ).encode()

    assert rewritten(body, None)["stream_options"] == sent


@pytest.mark.parametrize("value", ["1e999", "-1e999", "9" * 5000, "0.1000000000000000055511151231257827"])
def test_numbers_that_no_float_holds_are_not_read(value: str) -> None:
    body = f'{{"model":"m","stream":true,"stream_options":{{"x":{value}}},"messages":[]}}'.encode()

    sent = rewrite(understood(body), None, True)

    assert sent == body.replace(b'{"x"', b'{"include_usage":true,"x"')


@pytest.mark.parametrize("options", ["{}", "{ }", "{\n}"])
def test_empty_options_get_no_comma(options: str) -> None:
    body = f'{{"model":"m","stream":true,"stream_options":{options},"messages":[]}}'.encode()

    assert rewritten(body, None)["stream_options"] == {"include_usage": True}


def test_a_client_that_asks_for_usage_itself_has_its_bytes_unchanged() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'

    assert rewrite(understood(body), None, True) is None


def test_apis_without_the_option_are_not_asked() -> None:
    request = understood(b'{"model":"m","stream":true,"input":"x"}', "/v1/responses")

    assert rewrite(request, None, True) is None


def test_edits_apply_in_order_of_place() -> None:
    assert apply(b"0123456789", [Edit(5, 7, b"X"), Edit(0, 0, b"<"), Edit(9, 10, b">")]) == b"<01234X78>"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = st.none() | st.dictionaries(st.sampled_from(["include_usage", "x", "y"]), JSON, max_size=3)


@given(
    st.dictionaries(st.text(max_size=6), JSON, max_size=5),
    OPTIONS,
    st.text(min_size=1),
    st.text(min_size=1),
    st.booleans(),
    st.booleans(),
)
def test_everything_else_keeps_its_value(
    extra: dict[str, Any], options: dict[str, Any] | None, old: str, new: str, stream: bool, ascii_only: bool
) -> None:
    fields = {**extra, "model": old, "messages": MESSAGES, "stream": stream, "stream_options": options}
    body = json.dumps(fields, ensure_ascii=ascii_only, indent=1 if ascii_only else None).encode()

    sent = rewritten(body, new)

    usage = {"stream_options": {**(options or {}), "include_usage": True}} if stream else {}
    assert sent == {**fields, **usage, "model": new}
