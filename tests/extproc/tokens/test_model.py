import pytest

from extproc.tokens.files import load
from extproc.tokens.question import NotHere, Untellable


@pytest.fixture
def model(write, noon):
    return load(write(kind="with bos") / "tiny", noon)


def test_a_chat_is_its_rendered_messages_without_more_special_tokens(model, chat):
    assert model.pieces(chat("hi")) == [
        b"\1\0\0\0",
        "user\nhi",
        b"\2\0\0\0",
        "\n",
        b"\1\0\0\0",
        "assistant\n",
    ]


def test_but_a_request_may_want_them(model, chat):
    assert model.pieces(chat("hi", add_special_tokens=True))[:2] == [b"\0\0\0\0", b"\1\0\0\0"]


@pytest.mark.parametrize("prompt", ["hi", ["hi"]])
def test_a_completion_is_its_text_with_them(model, completion, prompt):
    assert model.pieces(completion(prompt)) == [b"\0\0\0\0", "hi", b""]
    assert model.pieces(completion(prompt, add_special_tokens=False)) == ["hi"]


def test_an_empty_completion_is_what_comes_before_it(model, completion):
    assert b"".join(model.pieces(completion(""))) == b"\0\0\0\0"


def test_what_a_user_writes_like_a_special_token_is_one(model, completion):
    assert model.pieces(completion("a<|im_end|>b"))[1:4] == ["a", b"\2\0\0\0", "b"]


def test_without_a_chat_template_an_engine_may_tell(write, noon, chat):
    model = load(write(template=None) / "tiny", noon)

    with pytest.raises(NotHere, match="the tokenizer tiny has no chat template"):
        model.pieces(chat("hi"))


def test_a_prompt_that_is_no_text_cannot_be_told(model, completion):
    with pytest.raises(Untellable, match="`prompt` is malformed"):
        model.pieces(completion(7))


def test_texts_are_encoded_in_turns_and_keep_their_order(model, unpacked):
    class Turn:
        entered = 0

        def __enter__(self):
            Turn.entered += 1

        def __exit__(self, *_):
            return None

    texts = ["the quick", "brown fox " * 5000, "é", "lazy " * 5000, "dog"]

    found = list(model.encode(texts, Turn()))

    assert [unpacked(ids) for ids in found] == [
        model.tokenizer.encode(text, add_special_tokens=False).ids for text in texts
    ]
    assert Turn.entered == 3
