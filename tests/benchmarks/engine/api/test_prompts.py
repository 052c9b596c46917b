from array import array

import msgspec
import pytest

from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.api.prompts import Message, Part, chat, prompts, text_of
from benchmarks.engine.tokens import decode, encode

NO_TOOLS = msgspec.Raw(b"")


def test_a_prompt_comes_in_four_forms() -> None:
    assert prompts("abcdefgh", "prompt") == [encode("abcdefgh")]
    assert prompts(["a", "b"], "prompt") == [encode("a"), encode("b")]
    assert prompts([1, 2], "prompt") == [array("I", [1, 2])]
    assert prompts([[1], [2, 3]], "prompt") == [array("I", [1]), array("I", [2, 3])]


@pytest.mark.parametrize("empty", ["", [], [""], ["a", ""], [[]], [[1], []]])
def test_an_empty_prompt_is_refused(empty) -> None:
    with pytest.raises(ApiError, match="must not be empty") as caught:
        prompts(empty, "prompt")
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("mixed", [["a", 1], [1, [2]], [[1], "a"]])
def test_a_list_holds_one_kind_only(mixed) -> None:
    with pytest.raises(ApiError, match="all texts, all token ids"):
        prompts(mixed, "prompt")


@pytest.mark.parametrize("ids", [[-1], [2**32], [[1], [2**40]]])
def test_an_id_outside_the_vocabulary_is_refused(ids) -> None:
    with pytest.raises(ApiError, match="out of vocabulary"):
        prompts(ids, "prompt")


@pytest.mark.parametrize("question", ["", "a", "ab", "abc", "abcd", "ümläut"])
@pytest.mark.parametrize("answer", ["x", "an answer"])
def test_the_next_turn_starts_with_this_turn_and_its_answer(question: str, answer: str) -> None:
    turn = [Message("system", "be brief"), Message("user", question)]
    so_far = chat(turn, NO_TOOLS) + encode(answer)
    following = chat([*turn, Message("assistant", answer), Message("user", "go on")], NO_TOOLS)
    assert following[: len(so_far)] == so_far


def test_tools_and_tool_calls_are_part_of_the_prompt() -> None:
    message = Message("user", "hi")
    plain = chat([message], NO_TOOLS)
    assert chat([message], msgspec.Raw(b'[{"name":"f"}]')) != plain
    assert chat([Message("user", "hi", tool_calls=msgspec.Raw(b"[1]"))], NO_TOOLS) != plain
    assert chat([Message("user", "hi", tool_call_id="7")], NO_TOOLS) != plain


def test_the_generation_prompt_can_be_left_out() -> None:
    message = Message("user", "hi")
    assert decode(chat([message], NO_TOOLS)).endswith("assistant\n")
    assert decode(chat([message], NO_TOOLS, answer_follows=False)).endswith("<|im_end|>\n")


def test_text_parts_are_joined_and_other_parts_refused() -> None:
    assert text_of([Part("text", "a"), Part("input_text", "b")]) == "ab"
    assert text_of(None) == ""
    with pytest.raises(ApiError, match="image_url"):
        text_of([Part("image_url")])
