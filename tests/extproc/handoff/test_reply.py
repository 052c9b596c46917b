import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.handoff.reply import read

PARAMS = b'{"remote_block_ids":[[1, 2]],  "remote_engine_id":"\\u0065-1","remote_num_tokens":1e2}'


def answer(**fields: Any) -> bytes:
    return json.dumps({"id": "x", "choices": [{"text": "kv_transfer_params"}], **fields}).encode()


def test_the_parameters_are_what_the_engine_wrote_byte_for_byte() -> None:
    reply = read(
        b'{"choices":[{"kv_transfer_params":1}], "kv_transfer_params" : ' + PARAMS + b' ,"usage":null}'
    )

    assert reply.params is not None
    assert bytes(reply.params) == PARAMS
    assert (reply.prompt_tokens, reply.cached_tokens) == (0, None)


@pytest.mark.parametrize("body", [answer(), answer(kv_transfer_params=None)])
def test_an_engine_may_have_no_parameters(body: bytes) -> None:
    assert read(body).params is None


@pytest.mark.parametrize(
    ("usage", "prompt", "cached"),
    [
        ({"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 64}}, 100, 64),
        ({"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 0}}, 100, 0),
        ({"prompt_tokens": 100, "prompt_tokens_details": None}, 100, None),
        ({"prompt_tokens": 100, "prompt_tokens_details": {}}, 100, None),
        ({"prompt_tokens": 100}, 100, None),
        ({"input_tokens": 100, "input_tokens_details": {"cached_tokens": 64}}, 100, 64),
        ({"input_tokens": 36, "cache_read_input_tokens": 64}, 100, 64),
        ({"input_tokens": 30, "cache_read_input_tokens": 64, "cache_creation_input_tokens": 6}, 100, 64),
        ({"input_tokens": 100, "cache_read_input_tokens": None}, 100, None),
        ({}, 0, None),
        (None, 0, None),
    ],
)
def test_every_api_tells_how_much_of_the_prompt_was_cached(
    usage: dict[str, Any] | None, prompt: int, cached: int | None
) -> None:
    reply = read(answer(usage=usage))

    assert (reply.prompt_tokens, reply.cached_tokens) == (prompt, cached)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"Internal Server Error: SECRET",
        b'{"kv_transfer_params":{}',
        b'{"kv_transfer_params":"SECRET"}',
        b'{"kv_transfer_params":[]}',
        b'{"kv_transfer_params":{"a":NaN}}',
        b'{"kv_transfer_params":{"a":"\xff"}}',
        b'{"choices":[{"text":"SECRET"}],"usage":[]}',
        b'{"usage":{"prompt_tokens":-1}}',
        b'{"usage":{"prompt_tokens":"SECRET"}}',
        b'{"usage":{"prompt_tokens_details":{"cached_tokens":1.5}}}',
        b'data: {"choices":[]}\n\n',
        b"[" * 100_000,
        b'{"x":' * 100_000,
    ],
)
def test_what_is_no_answer_is_refused_and_not_repeated(body: bytes) -> None:
    with pytest.raises(ValueError, match="prefill engine") as refusal:
        read(body)

    assert "SECRET" not in str(refusal.value)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_read_or_refused(body: bytes) -> None:
    with suppress(ValueError):
        read(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["kv_transfer_params", "usage", "prompt_tokens"]), JSON))
def test_arbitrary_answers_are_read_or_refused(fields: dict[str, Any]) -> None:
    with suppress(ValueError):
        reply = read(json.dumps(fields).encode())
        sent = None if reply.params is None else msgspec.json.decode(reply.params)
        assert sent == fields.get("kv_transfer_params")
        assert reply.prompt_tokens >= 0
