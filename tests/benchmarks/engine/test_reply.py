import pytest

from benchmarks.engine.reply import reply
from benchmarks.engine.tokens import decode, encode


@pytest.mark.parametrize("length", [0, 1, 2, 7, 32, 500])
def test_a_reply_has_exactly_the_length_asked_for(length: int) -> None:
    assert len(reply("pod-a", encode("hello"), length)) == length


def test_the_first_words_name_the_engine() -> None:
    assert decode(reply("pod-a", encode("hello"), 8)).startswith("pod-a says ")


def test_equal_prompts_get_equal_replies_and_others_differ() -> None:
    replies = {decode(reply("e", encode(text), 32)) for text in ("a", "a", "b", "c", "d", "e")}
    assert decode(reply("e", encode("a"), 32)) in replies
    assert 1 < len(replies) <= 5


def test_a_short_reply_is_the_start_of_a_long_one() -> None:
    prompt = encode("hello")
    assert reply("e", prompt, 40)[:9] == reply("e", prompt, 9)
