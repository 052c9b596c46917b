import json
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.tokens.given import own_ids, require_text
from extproc.tokens.question import Parts, Question, Untellable


def asked(kind: str = "completion", **fields: object) -> Question:
    return Question(kind, Parts.of(json.dumps(fields).encode()), "m", "t")


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_ids_that_the_client_sent_come_back(ids):
    packed = array("I", ids).tobytes()

    assert own_ids(asked(prompt=ids)) == packed
    assert own_ids(asked(prompt=[ids])) == packed


@pytest.mark.parametrize("prompt", ["", "text", ["text"]])
def test_text_has_no_ids_of_its_own(prompt):
    assert own_ids(asked(prompt=prompt)) is None


def test_neither_has_a_chat():
    assert own_ids(asked("chat", messages=[])) is None


@pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]], []])
def test_several_prompts_or_none_cannot_be_told(prompt):
    with pytest.raises(Untellable, match="several prompts, or none"):
        own_ids(asked(prompt=prompt))


@pytest.mark.parametrize(
    "prompt", [[-1], [2**32], [2**70], [1.5], [True], [1, "a"], [1, [2]], [[1, "a"]], [None], [{}]]
)
def test_a_list_of_something_else_cannot_be_told(prompt):
    with pytest.raises(Untellable, match="neither text nor token ids"):
        own_ids(asked(prompt=prompt))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "no prompt"),
        ({"prompt": None}, "no prompt"),
        ({"prompt": [1], "truncate_prompt_tokens": 5}, "truncates"),
        ({"prompt": "a", "prompt_embeds": "AAAA"}, "embeddings"),
    ],
)
def test_what_the_engine_computes_otherwise_cannot_be_told(fields, why):
    with pytest.raises(Untellable, match=why):
        own_ids(asked(**fields))


@pytest.mark.parametrize(
    "content",
    ["text", "", None, [], ["text"], [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]],
)
def test_text_is_text_in_every_shape(content):
    require_text(asked("chat", messages=[{"role": "user", "content": content}, {"role": "assistant"}]))


def test_a_completion_is_text():
    require_text(asked(prompt="text"))


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video_url", "image_embeds", "of the future"])
def test_media_are_not_text_wherever_they_are(kind):
    media = [{"type": "text", "text": "a"}, {"type": kind, kind: {"url": "data:,"}}]
    with pytest.raises(Untellable, match="images or other media"):
        require_text(asked("chat", messages=[{"content": "text"}, {"role": "user", "content": media}]))


@pytest.mark.parametrize("messages", [{}, "text", [1], [{"content": 1}], [{"content": [{"text": "a"}]}]])
def test_malformed_messages_cannot_be_told(messages):
    with pytest.raises(Untellable, match="malformed"):
        require_text(asked("chat", messages=messages))
