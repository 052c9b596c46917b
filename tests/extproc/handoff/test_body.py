import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.handoff.body import decode_body, prefill_body, several
from extproc.request import APIS, Api, InferenceRequest, parse

CHAT = APIS["/v1/chat/completions"]
COMPLETIONS = APIS["/v1/completions"]
MESSAGES = APIS["/v1/messages"]
RESPONSES = APIS["/v1/responses"]
HANDED_OFF = (CHAT, COMPLETIONS, MESSAGES, RESPONSES)
PROMPT: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": 'say "max_tokens":9'}]},
    "completions": {"prompt": 'say "n":2'},
    "messages": {"messages": [{"role": "user", "content": "hi"}]},
    "responses": {"input": "hi"},
}
LIMIT = {
    "chat": {"max_tokens": 1, "max_completion_tokens": 1, "ignore_eos": True},
    "completions": {"max_tokens": 1, "ignore_eos": True},
    "messages": {"max_tokens": 1},
    "responses": {"max_output_tokens": 1, "ignore_eos": True, "store": False},
}
PARAMS = {"kv_transfer_params": b'{"do_remote_decode":true}'}
SENT_PARAMS = {"kv_transfer_params": {"do_remote_decode": True}}


def prefill(api: Api, said: dict[str, Any], fields: dict[str, bytes] = PARAMS) -> Any:
    body = json.dumps({"model": "m", **PROMPT[api.name], **said}).encode()
    return json.loads(prefill_body(api, body, fields))


@pytest.mark.parametrize("api", HANDED_OFF, ids=lambda api: api.name)
def test_the_prompts_leg_asks_for_one_token_and_carries_the_transfer(api: Api) -> None:
    assert prefill(api, {}) == {"model": "m", **PROMPT[api.name], **LIMIT[api.name], **SENT_PARAMS}


@pytest.mark.parametrize("api", HANDED_OFF, ids=lambda api: api.name)
def test_the_prompts_leg_is_answered_in_one_piece(api: Api) -> None:
    limits = {name: 500 for name in LIMIT[api.name] if name.startswith("max_")}
    sent = prefill(api, {"stream": True, "stream_options": {"include_usage": True}, **limits})

    assert sent == {
        "model": "m",
        **PROMPT[api.name],
        **LIMIT[api.name],
        **SENT_PARAMS,
        "stream": False,
        "stream_options": None,
    }


def test_what_one_token_can_not_keep_to_is_taken_back() -> None:
    said = {
        "min_tokens": 5,
        "n": 1,
        "best_of": 1,
        "logprobs": True,
        "top_logprobs": 20,
        "logprob_token_ids": [1, 2],
        "stop_token_ids": [7],
        "ignore_eos": False,
        "structured_outputs": {"regex": "a{5}"},
    }
    sent = prefill(CHAT, said)

    assert {name: sent[name] for name in said} == {
        "min_tokens": 0,
        "n": 1,
        "best_of": None,
        "logprobs": False,
        "top_logprobs": 0,
        "logprob_token_ids": None,
        "stop_token_ids": [],
        "ignore_eos": True,
        "structured_outputs": None,
    }
    assert prefill(COMPLETIONS, {"logprobs": 5})["logprobs"] is None


def test_what_shapes_the_prompt_stays() -> None:
    said = {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "required",
        "chat_template_kwargs": {"enable_thinking": False, "max_tokens": 7},
        "documents": [{"text": "t"}],
        "response_format": {"type": "json_object"},
        "reasoning_effort": "low",
        "cache_salt": "s",
        "priority": 3,
        "seed": 1,
        "truncate_prompt_tokens": 100,
    }

    assert {name: sent for name, sent in prefill(CHAT, said).items() if name in said} == said


def test_a_response_is_not_kept_by_the_engine_that_computes_its_prompt() -> None:
    sent = prefill(
        RESPONSES, {"store": True, "background": True, "include": ["message.output_text.logprobs"]}
    )

    assert (sent["store"], sent["background"], sent["include"]) == (False, False, None)


def test_thinking_needs_no_more_tokens_than_there_are() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2000}

    assert prefill(MESSAGES, {"thinking": thinking}, {})["thinking"] is None
    assert prefill(MESSAGES, {"thinking": thinking})["thinking"] == thinking


def test_an_engine_that_passes_its_token_on_samples_it_as_the_client_asked() -> None:
    said = {"stream": True, "max_tokens": 50, "logprobs": True, "min_tokens": 3, "stop_token_ids": [7]}
    body = json.dumps({"model": "m", "messages": [], **said}).encode()

    sent = json.loads(prefill_body(CHAT, body, {"bootstrap_room": b"1"}, as_asked=True))

    assert sent == {"model": "m", "messages": [], **said, "stream": False, "bootstrap_room": 1}


def test_of_members_of_one_name_the_last_is_changed_because_it_counts() -> None:
    body = b'{"stream":1,"min_tokens":3,"messages":[],"min_tokens":9,"max_tok\\u0065ns":5,"stream":true}'

    assert prefill_body(CHAT, body, {}) == (
        b'{"max_completion_tokens":1,"ignore_eos":true,'
        b'"stream":1,"min_tokens":3,"messages":[],"min_tokens":0,"max_tok\\u0065ns":1,"stream":false}'
    )


def test_a_field_of_the_transfer_overrules_one_that_is_there() -> None:
    assert prefill(CHAT, {"kv_transfer_params": {"mine": 1}})["kv_transfer_params"] == {
        "do_remote_decode": True
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        "stream",
        "stream_options",
        "min_tokens",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "logprobs",
        "x",
        "é",
    ]
)
SAID = st.lists(st.tuples(NAMES, JSON), max_size=8)


def text_of(pairs: list[tuple[str, Any]], indent: bool) -> bytes:
    comma, colon = (" ,\n ", " : ") if indent else (",", ":")
    members = comma.join(f"{json.dumps(name)}{colon}{json.dumps(value)}" for name, value in pairs)
    return f"{{{members}}}".encode()


@given(
    st.sampled_from(HANDED_OFF), SAID, st.booleans(), st.dictionaries(st.text(max_size=4), JSON, max_size=3)
)
def test_an_engine_reads_what_is_meant_whatever_was_said(
    api: Api, said: list[tuple[str, Any]], indent: bool, fields: dict[str, Any]
) -> None:
    body = text_of([*said, *PROMPT[api.name].items(), ("model", "m")], indent)

    sent = json.loads(prefill_body(api, body, {n: json.dumps(v).encode() for n, v in fields.items()}))

    wanted = {**LIMIT[api.name], **fields}
    assert {name: sent[name] for name in wanted} == wanted
    assert not sent.get("stream") or "stream" in fields
    assert not sent.get("stream_options") or "stream_options" in fields
    if api is not MESSAGES:
        assert not sent.get("min_tokens") or "min_tokens" in fields
    for name in {"x", "é", "model", *PROMPT[api.name]} - set(fields):
        assert sent.get(name) == json.loads(body).get(name)


@given(SAID, st.booleans(), st.dictionaries(st.text(min_size=7), JSON, max_size=3))
def test_the_answers_leg_is_the_body_again_without_what_was_put_in(
    said: list[tuple[str, Any]], indent: bool, fields: dict[str, Any]
) -> None:
    body = text_of(said, indent)
    fields = {f"kv_{name}": value for name, value in fields.items()}

    sent, start, length = decode_body(body, {n: json.dumps(v).encode() for n, v in fields.items()})

    assert sent[:start] + sent[start + length :] == body
    assert json.loads(sent, object_pairs_hook=list) == [
        (name, json.loads(json.dumps(value), object_pairs_hook=list))
        for name, value in [*fields.items(), *said]
    ]
    assert bool(length) == bool(fields)


def test_the_parameters_stand_at_the_front_as_the_engine_wrote_them() -> None:
    params = b'{ "remote_block_ids":[[1, 2]] }'

    sent, start, length = decode_body(b' {"model":"m"}', {"kv_transfer_params": params})

    assert sent == b' {"kv_transfer_params":' + params + b',"model":"m"}'
    assert (start, length) == (2, len(b'"kv_transfer_params":,') + len(params))


def why_not(path: str, **said: Any) -> str | None:
    api = APIS[path]
    asked = parse(api, json.dumps({"model": "m", **PROMPT.get(api.name, {}), **said}).encode())
    assert isinstance(asked, InferenceRequest), asked
    return several(asked)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"])
def test_one_prompt_with_one_answer_can_be_handed_off(path: str) -> None:
    assert why_not(path) is None
    assert why_not(path, n=1, echo=False, prompt_logprobs=None, best_of=None, use_beam_search=False) is None


@pytest.mark.parametrize(
    "said",
    [
        {"n": 2},
        {"n": "2"},
        {"n": 0},
        {"n": 1.5},
        {"best_of": 3},
        {"use_beam_search": True},
        {"echo": True},
        {"echo": 1},
        {"prompt_logprobs": 0},
        {"prompt_logprobs": 5},
        {"previous_response_id": "resp_1"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"])
def test_what_makes_a_request_more_than_that_is_named(path: str, said: dict[str, Any]) -> None:
    (name,) = said

    assert why_not(path, **said) == f"it sets `{name}`"


@pytest.mark.parametrize("prompt", [["one", "two"], [[1, 2], [3]], ["", "", ""]])
def test_several_prompts_stay_together(prompt: list[Any]) -> None:
    assert why_not("/v1/completions", prompt=prompt) == "it has several prompts"


@pytest.mark.parametrize("prompt", [["one"], [[1, 2]], [1, 2, 3], [], "[[", '["a","b"]'])
def test_one_prompt_has_several_forms(prompt: Any) -> None:
    assert why_not("/v1/completions", prompt=prompt) is None


def test_the_space_before_a_list_of_prompts_does_not_hide_it() -> None:
    asked = parse(COMPLETIONS, b'{"model":"m","prompt":[ \n "a" , "b" ]}')
    assert isinstance(asked, InferenceRequest)

    assert several(asked) == "it has several prompts"


def test_prompts_that_are_no_text_stay_with_one_engine() -> None:
    assert why_not("/v1/completions", prompt_embeds="abc") == "it sets `prompt_embeds`"
    assert why_not("/v1/completions", prompt_embeds=None) is None


@pytest.mark.parametrize(
    ("tools", "alone"),
    [
        ([{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}], False),
        ([{"type": "function", "name": "f"}, {"type": "mcp", "server_label": "l"}], True),
        ([{"type": "web_search_preview"}], True),
        ([{"type": "code_interpreter"}], True),
        ([], False),
        ("nonsense", False),
        ([{"type": 1}], False),
    ],
)
def test_an_engine_that_calls_tools_computes_several_prompts(tools: Any, alone: bool) -> None:
    assert (why_not("/v1/responses", tools=tools) is not None) is alone
    assert why_not("/v1/chat/completions", tools=tools) is None


@pytest.mark.parametrize(
    ("path", "said"), [("/v1/embeddings", {"input": "x"}), ("/v1/rerank", {"query": "q"})]
)
def test_requests_without_generated_tokens_are_not_handed_off(path: str, said: dict[str, Any]) -> None:
    assert (
        why_not(path, **said) == f"{APIS[path].name} requests have no answer that is computed token by token"
    )
