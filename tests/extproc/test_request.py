import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.rejection import Rejection
from extproc.request import APIS, InferenceRequest, parse

CHAT = APIS["/v1/chat/completions"]
COMPLETIONS = APIS["/v1/completions"]
MESSAGES = [{"role": "user", "content": "hello"}]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def understood(path: str, **fields: Any) -> InferenceRequest:
    result = parse(APIS[path], json.dumps(fields).encode())
    assert isinstance(result, InferenceRequest), result
    return result


def refused(body: bytes, path: str = "/v1/chat/completions") -> Rejection:
    result = parse(APIS[path], body)
    assert isinstance(result, Rejection)
    return result


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/completions", {"prompt": "text"}),
        ("/v1/completions", {"prompt": ["one", "two"]}),
        ("/v1/completions", {"prompt": [1, 2, 3]}),
        ("/v1/completions", {"prompt": [[1, 2], [3]]}),
        ("/v1/embeddings", {"input": "text"}),
        ("/v1/embeddings", {"input": ["a", "b"]}),
        ("/v1/responses", {"input": "text"}),
        ("/v1/responses", {"input": [{"role": "user", "content": "x"}]}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 5}),
        ("/v1/rerank", {"query": "q", "documents": ["d"]}),
    ],
)
def test_every_api_and_form_of_prompt_is_understood(path: str, prompt: dict[str, Any]) -> None:
    request = understood(path, model="m", **prompt)

    assert (request.model, request.stream) == ("m", False)


def test_stream_is_true_only_when_it_is_true() -> None:
    assert understood("/v1/completions", model="m", prompt="p", stream=True).stream
    assert not understood("/v1/completions", model="m", prompt="p", stream=None).stream


def test_model_may_hold_escapes_and_any_script() -> None:
    body = b'{"model":"caf\\u00e9/\xe6\xa8\xa1\xe5\x9e\x8b","messages":[]}'

    result = parse(CHAT, body)

    assert isinstance(result, InferenceRequest)
    assert result.model == "café/模型"


def test_a_later_duplicate_of_model_counts_as_json_parsers_have_it() -> None:
    result = parse(CHAT, b'{"model":"first","messages":[],"model":"second"}')

    assert isinstance(result, InferenceRequest)
    assert result.model == "second"


@pytest.mark.parametrize(
    ("body", "reason", "param"),
    [
        (b"", "invalid-json", None),
        (b"not json", "invalid-json", None),
        (b"[]", "invalid-json", None),
        (b'"text"', "invalid-json", None),
        (b"null", "invalid-json", None),
        (b'{"model":"m","messages":[]} {}', "invalid-json", None),
        (b'{"model":"m","messages":[NaN]}', "invalid-json", None),
        (b'\xef\xbb\xbf{"model":"m","messages":[]}', "invalid-json", None),
        (b'{"model":"m","messages":["\xff"]}', "invalid-json", None),
        (b'{"model":"m\xff","messages":[]}', "invalid-json", None),
        (b'{"messages":[]}', "missing-model", "model"),
        (b'{"model":["m"],"messages":[]}', "invalid-model", "model"),
        (b'{"model":null,"messages":[]}', "invalid-model", "model"),
        (b'{"model":"","messages":[]}', "invalid-model", "model"),
        (b'{"model":3,"messages":[]}', "invalid-model", "model"),
        (b'{"model":"m"}', "missing-input", "messages"),
        (b'{"model":"m","messages":null}', "missing-input", "messages"),
        (b'{"model":"m","messages":"text"}', "invalid-input", "messages"),
        (b'{"model":"m","messages":{"a":1}}', "invalid-input", "messages"),
    ],
)
def test_bad_bodies_get_a_reason(body: bytes, reason: str, param: str | None) -> None:
    rejection = refused(body)

    assert (rejection.reason, rejection.status, rejection.param) == (reason, 400, param)


@pytest.mark.parametrize("where", [b'{"model":"m","messages":%s}', b'{"model":%s,"messages":[]}', b"%s"])
@pytest.mark.parametrize("depth", [10_000, 1_000_000])
def test_deep_nesting_is_refused_not_fatal(where: bytes, depth: int) -> None:
    rejection = refused(where % (b"[" * depth + b"]" * depth))

    assert rejection.reason == "invalid-json"


def test_messages_never_repeat_the_prompt() -> None:
    for body in (b'{"model":"m","messages":"SECRET"}', b'{"model":"m","messages":[SECRET]}', b"SECRET"):
        assert "SECRET" not in refused(body).message


def test_only_members_of_the_body_itself_steer_an_engine() -> None:
    assert not understood("/v1/completions", model="m", prompt="kv_transfer_params", n=1).control
    assert understood("/v1/completions", model="m", prompt="p", kv_transfer_params=None).control
    assert understood("/v1/completions", model="m", prompt="p", vllm_xargs={}).control


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_understood(body: bytes) -> None:
    for api in APIS.values():
        parse(api, body)


@given(st.dictionaries(st.sampled_from(["model", "messages", "prompt", "stream", "input", "x"]), JSON))
def test_arbitrary_json_is_refused_or_understood(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    for api in APIS.values():
        result = parse(api, body)
        if isinstance(result, InferenceRequest):
            assert result.model == fields["model"]
