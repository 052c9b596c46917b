import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine.api.chat import ChatRequest
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.api.parse import parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refused(raw: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(raw, ChatRequest)
    return caught.value


def test_a_missing_field_reads_as_vllms(captures) -> None:
    assert refused(b'{"model":"tiny"}').body() == captures["err_nomsg"].json


def test_cut_off_json_reads_as_vllms_but_for_the_parsers_words(captures, same_shape) -> None:
    given = refused(b'{"model":"tiny","messages":').body()
    captured = captures["err_badjson"].json
    assert same_shape(given, captured)
    assert given["error"]["param"] == captured["error"]["param"]
    assert given["error"]["type"] == captured["error"]["type"]


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b'{"messages":[],"model":["x"]}', "body.model"),
        (b'{"messages":[{"content":"x"}]}', "body.messages.0.role"),
        (b'{"messages":[{"role":"user"},{"role":7}]}', "body.messages.1.role"),
        (b'{"messages":"x"}', "body.messages"),
        (b"[]", "body"),
    ],
)
def test_a_wrong_type_names_its_place(raw: bytes, param: str) -> None:
    assert refused(raw).param == param


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"nonsense", b"\xff\xfe", b'{"messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}", b"\0" * 9],
)
def test_hostile_bytes_get_an_error(raw: bytes) -> None:
    assert refused(raw).status == 400


@given(
    st.binary()
    | JSON.map(msgspec.json.encode)
    | st.dictionaries(st.sampled_from(["model", "messages", "n"]), JSON).map(msgspec.json.encode)
)
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    error = None
    try:
        parse(raw, ChatRequest)
    except ApiError as caught:
        error = caught
    if error is not None:
        assert error.status == 400
        assert error.body()["error"]["param"].startswith("body")
