import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.tokens.seams import CHUNK, NO_SEAMS, AddedToken, Parts, Seams, _any_of

GPT2 = {"type": "ByteLevel", "use_regex": True}


def seams(*tokens: AddedToken, pre: dict[str, object] | None = GPT2, normalizer=None) -> Seams:
    return Seams.of(Parts(list(tokens), normalizer, pre))


def test_a_special_token_stands_for_itself():
    found = list(seams(AddedToken(7, "<s>")).split("<s>one<s><s>two"))

    assert found == [b"\x07\0\0\0", "one", b"\x07\0\0\0", b"\x07\0\0\0", "two"]


@pytest.mark.parametrize(
    "token",
    [
        AddedToken(7, "<s>", normalized=True),
        AddedToken(7, "<s>", lstrip=True),
        AddedToken(7, "<s>", rstrip=True),
        AddedToken(7, "<s>", single_word=True),
        AddedToken(7, "s>"),
        AddedToken(7, "<s"),
        AddedToken(7, " <s>"),
    ],
)
def test_a_token_that_its_neighbours_matter_to_is_no_seam(token):
    assert list(seams(token).split(f"a{token.content}b")) == [f"a{token.content}b"]


def test_the_longest_token_is_found_first():
    found = seams(AddedToken(1, "<a>"), AddedToken(2, "<a>>"), AddedToken(3, "<a>>x")).split("<a>>x<a>><a>")

    assert list(found) == ["<a>>x", b"\2\0\0\0", b"\1\0\0\0"]


def test_a_long_text_is_cut_between_words_and_keeps_its_chunks_as_it_grows():
    text = "some words, 12 of them; " * (3 * CHUNK // 24)
    chunks = list(seams().split(text))
    grown = list(seams().split(text + "and more of them " * 10))

    assert len(chunks) >= 3
    assert "".join(chunks) == text
    assert all(re.fullmatch(r" [a-z]", chunk[:2]) for chunk in chunks[1:])
    assert grown[: len(chunks) - 1] == chunks[:-1]


@pytest.mark.parametrize("text", ["a" * 3 * CHUNK, "1 2 " * CHUNK, "你 好 " * CHUNK])
def test_a_text_without_words_stays_whole(text):
    assert list(seams().split(text)) == [text]


@pytest.mark.parametrize(
    "pre",
    [
        None,
        {"type": "Metaspace", "prepend_scheme": "always"},
        {"type": "ByteLevel", "use_regex": False},
        {"type": "Split", "pattern": {"String": " "}},
        {"type": "Split", "pattern": {"Regex": "(?<=x)y"}},
        {"type": "Sequence", "pretokenizers": [GPT2, {"type": "Metaspace"}]},
        {"type": "SomethingNew"},
    ],
)
def test_words_are_kept_together_where_the_pre_tokenizer_may_not_split_them(pre):
    text = "word " * CHUNK

    assert list(seams(pre=pre).split(text)) == [text]


@pytest.mark.parametrize("kind", ["Prepend", "Replace", "Strip", "Lowercase"])
def test_or_where_the_normalizer_may_look_beyond_them(kind):
    text = "word " * CHUNK
    nested = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": kind}]}

    assert list(seams(normalizer=nested).split(text)) == [text]
    assert len(list(seams(normalizer={"type": "NFC"}).split(text))) > 1


def test_or_where_a_token_has_two_words():
    text = "word " * CHUNK

    assert list(seams(AddedToken(1, "<New York>", normalized=True)).split(text)) == [text]


def test_weaker_seams_end_in_none():
    strong = seams(AddedToken(7, "<s>"))
    weaker = strong.weaker()
    assert weaker is not None
    assert not weaker.chunks
    assert list(weaker.split("<s>")) == [b"\x07\0\0\0"]
    assert weaker.weaker() == NO_SEAMS
    assert NO_SEAMS.weaker() is None


@given(st.sets(st.text("ab<|.+", min_size=1, max_size=5), min_size=1), st.text("ab<|.+"))
def test_a_tree_of_words_finds_what_the_words_find(words, text):
    longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))

    assert re.findall(_any_of(words), text) == re.findall(longest_first, text)


def test_thousands_of_tokens_are_found():
    tokens = [AddedToken(at, f"<unused{at}>") for at in range(6000)]

    assert list(seams(*tokens).split("<unused5999> <unused59> <unused>")) == [
        (5999).to_bytes(4, "little"),
        " ",
        (59).to_bytes(4, "little"),
        " <unused>",
    ]
