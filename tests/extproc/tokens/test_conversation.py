import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.tokens.conversation import Conversation, conversation
from extproc.tokens.question import NotHere, Parts, Untellable


def prepared(
    *messages: object, lists: bool = False, developers: bool = True, **fields: object
) -> Conversation:
    parts = Parts.of(json.dumps({"messages": messages} | fields).encode())
    return conversation(parts, lists=lists, developers=developers)


def said(message: object, **how: bool) -> dict[str, object]:
    (only,) = prepared(message, **how).messages
    return only


PARTS = [
    {"type": "text", "text": "a"},
    "b",
    {"type": "refusal", "refusal": "c"},
    {"type": "text", "text": None},
]


def test_texts_of_a_message_are_joined_by_newlines():
    assert said({"role": "user", "content": PARTS}) == {"role": "user", "content": "a\nb\nc"}
    assert said({"role": "user", "content": "a"}) == {"role": "user", "content": "a"}
    assert said({"role": "assistant"}) == {"role": "assistant", "content": ""}


def test_or_come_one_by_one_to_a_template_that_walks_through_them():
    texts = [{"type": "text", "text": text} for text in "abc"]

    assert said({"role": "user", "content": PARTS}, lists=True) == {"role": "user", "content": texts}
    assert said({"role": "user", "content": "a"}, lists=True) == {"role": "user", "content": texts[:1]}
    assert said({"role": "user", "content": None}, lists=True) == {"role": "user", "content": []}


def test_the_result_of_a_tool_is_text_in_any_case():
    result = {"role": "tool", "tool_call_id": "7", "content": [{"type": "text", "text": "a"}]}

    assert said(result, lists=True) == {"role": "tool", "content": "a", "tool_call_id": "7"}


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ('{"a": 1}', {"a": 1}),
        ({"a": 1}, {"a": 1}),
        ("", {}),
        (None, {}),
        ("[1]", {}),
        ("{", {}),
        ("[" * 9999, {}),
    ],
)
def test_the_arguments_of_a_call_are_an_object(sent, told):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": sent}}
    message = said({"role": "assistant", "content": "x", "tool_calls": [call]})

    assert message["tool_calls"] == [call | {"function": {"name": "f", "arguments": told}}]


@pytest.mark.parametrize("calls", [None, []])
def test_no_calls_are_none(calls):
    assert "tool_calls" not in said({"role": "assistant", "content": "x", "tool_calls": calls})


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_comes_under_both_names(field):
    message = said({"role": "assistant", "content": "x", field: "because"})

    assert (message["reasoning"], message["reasoning_content"]) == ("because", "because")


def test_names_stay():
    assert said({"role": "user", "content": "x", "name": "ann"})["name"] == "ann"


def test_tools_carry_their_optional_fields_in_the_engines_order():
    tools = [{"function": {"parameters": {"b": 1, "a": 2}, "name": "f", "more": 1}, "more": 1}]

    told = prepared(tools=tools).tools

    assert json.dumps(told) == json.dumps(
        [{"type": "function", "function": {"name": "f", "description": None, "parameters": {"b": 1, "a": 2}}}]
    )
    assert prepared(tools=None).tools is None


def test_a_template_that_knows_no_developers_gets_one_system_message_first():
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "developer", "content": [{"type": "text", "text": "dev"}], "tools": [1]},
        {"role": "system", "content": "sys"},
    ]

    told = prepared(*messages, lists=True, developers=False).messages

    assert told == [
        {"role": "system", "content": "dev\n\nsys"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    assert [message["role"] for message in prepared(*messages).messages] == ["user", "developer", "system"]


def test_a_developer_who_speaks_first_is_the_system():
    told = prepared(
        {"role": "developer", "content": "dev"}, {"role": "user", "content": "hi"}, developers=False
    )

    assert told.messages == [{"role": "system", "content": "dev"}, {"role": "user", "content": "hi"}]


def test_variables_are_the_clients_and_what_follows_from_the_request():
    assert prepared().variables == {"add_generation_prompt": True, "documents": None}
    told = prepared(
        add_generation_prompt=False,
        chat_template_kwargs={"a": 1, "add_generation_prompt": True},
        documents=[{"title": "t"}],
        reasoning_effort="none",
    ).variables
    assert told == {
        "a": 1,
        "add_generation_prompt": False,
        "documents": [{"title": "t"}],
        "reasoning_effort": "none",
        "enable_thinking": False,
    }
    kept = prepared(chat_template_kwargs={"enable_thinking": False}, reasoning_effort="high").variables
    assert kept["enable_thinking"] is False


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"chat_template": "x"}, "own chat template"), ({"continue_final_message": True}, "continues its last")],
)
def test_what_only_the_engine_interprets_is_left_to_it(fields, why):
    with pytest.raises(NotHere, match=why):
        prepared(**fields)


def test_saying_no_to_it_is_fine():
    assert prepared(continue_final_message=False, chat_template=None).messages == []


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video_url", "never heard of"])
def test_images_cannot_be_told(kind):
    with pytest.raises(Untellable, match="images"):
        said({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind}]})


BAD = [
    ({}, "no role"),
    ({"role": 1}, "no role"),
    ({"role": "user", "content": 1}, "neither text nor a list"),
    ({"role": "user", "content": [1]}, "no type"),
    ({"role": "user", "content": [{}]}, "no type"),
    ({"role": "user", "content": [{"type": "text", "text": 1}]}, "no text"),
    ({"role": "assistant", "tool_calls": 1}, "`tool_calls` is malformed"),
    ({"role": "assistant", "tool_calls": [1]}, "`tool_calls` is malformed"),
    ({"role": "assistant", "tool_calls": [{}]}, "no function"),
    (1, "`messages` is malformed"),
]


@pytest.mark.parametrize(("message", "why"), BAD, ids=str)
def test_malformed_messages_cannot_be_told(message, why):
    with pytest.raises(Untellable, match=why):
        said(message)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": 1},
        {"tools": [1]},
        {"tools": [{}]},
        {"chat_template_kwargs": []},
        {"documents": 1},
        {"reasoning_effort": 1},
        {"add_generation_prompt": "yes"},
    ],
    ids=str,
)
def test_malformed_fields_cannot_be_told(fields):
    with pytest.raises(Untellable):
        prepared(**fields)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "tool_calls", "function"]), inner
        )
    ),
    max_leaves=10,
)
MESSAGE = JSON | st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "developer"]), "content": JSON},
    optional={"tool_calls": JSON},
)


@given(st.lists(MESSAGE, max_size=3), JSON, st.booleans(), st.booleans())
def test_no_input_does_anything_else(messages, tools, lists, developers):
    try:
        told = prepared(*messages, lists=lists, developers=developers, tools=tools)
    except (Untellable, NotHere):
        return
    assert all(isinstance(message["content"], str | list) for message in told.messages)
