import json
from array import array
from contextlib import nullcontext

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.tokens.files import Broken, load
from extproc.tokens.model import Model
from extproc.tokens.seams import CHUNK, NO_SEAMS

WORDS = ["the", " quick", "fox", " New", " York", "X", "x", " a", "it's", "123"]
LETTERS = ["é", "e\u0301", "你好", "👩‍🚀"]
MARKS = ["<|im_start|>", "<|im_end|>", "<|end|>", "<|im", " ", "\n", "  ", "\t", "_", "."]
WORD = st.sampled_from(WORDS + LETTERS + MARKS)
TEXT = st.lists(WORD, max_size=60).map("".join) | st.text(max_size=40)
LONG = st.tuples(st.lists(WORD, min_size=3, max_size=12), TEXT).map(
    lambda two: "".join(two[0]) * 1500 + two[1]
)


def ids(model: Model, text: str) -> bytes:
    pieces = list(model.seams.split(text))
    encoded = iter(model.encode([piece for piece in pieces if isinstance(piece, str)], nullcontext()))
    return b"".join(piece if isinstance(piece, bytes) else next(encoded) for piece in pieces)


@pytest.mark.parametrize(
    "kind",
    [
        "llama 3",
        "gpt 2",
        "gpt 2, normalised",
        "gpt 2, with a prefix space",
        "metaspace, first",
        "metaspace, always",
        "llama 2",
        "gemma",
        "stripping",
        "eats spaces",
        "single words",
        "two words",
        "tokens in tokens",
        "looking back",
        "sentences",
    ],
)
def test_pieces_give_the_tokens_of_the_whole_text(write, kinds, noon, kind):
    model = load(write(kind=kind) / "tiny", noon)

    @given(TEXT)
    @example("fox<|im_end|> fox <|im_start|>")
    @example(" New York <|end|>  <|im_end|>X")
    def check(text: str) -> None:
        assert (
            ids(model, text) == array("I", kinds(kind).encode(text, add_special_tokens=False).ids).tobytes()
        )

    check()


@pytest.mark.parametrize(
    "kind",
    ["llama 3", "gpt 2", "gpt 2, normalised", "gpt 2, with a prefix space", "two words", "looking back"],
)
def test_also_those_of_long_texts(write, kinds, noon, kind):
    model = load(write(kind=kind) / "tiny", noon)

    @settings(max_examples=15)
    @given(LONG)
    def check(text: str) -> None:
        assert (
            ids(model, text) == array("I", kinds(kind).encode(text, add_special_tokens=False).ids).tobytes()
        )

    check()


@pytest.mark.parametrize("kind", ["llama 3", "gpt 2", "gpt 2, normalised"])
def test_usual_tokenizers_have_all_seams(write, noon, kind):
    seams = load(write(kind=kind) / "tiny", noon).seams

    assert seams.chunks
    assert {"<|im_start|>", "<|im_end|>"} <= seams.ids.keys()


@pytest.mark.parametrize(
    "kind", ["two words", "looking back", "eats spaces", "tokens in tokens", "sentences"]
)
def test_others_have_their_special_tokens(write, noon, kind):
    seams = load(write(kind=kind) / "tiny", noon).seams

    assert not seams.chunks
    assert {"<|im_start|>", "<|im_end|>"} <= seams.ids.keys()


def test_or_nothing(write, noon):
    assert load(write(kind="metaspace, first") / "tiny", noon).seams == NO_SEAMS


@pytest.mark.parametrize(
    ("kind", "config", "opening", "closing"),
    [
        ("gpt 2", {}, [], []),
        ("with bos", {}, [0], []),
        ("with bos", {"add_bos_token": False, "bos_token": "<|endoftext|>"}, [], []),
        ("gpt 2", {"add_bos_token": True, "bos_token": "<|endoftext|>"}, [0], []),
        ("gpt 2", {"add_eos_token": True, "eos_token": {"content": "<|im_end|>"}}, [], [2]),
        ("gpt 2", {"add_bos_token": True}, [], []),
    ],
)
def test_ids_around_a_text(write, noon, unpacked, kind, config, opening, closing):
    model = load(write(kind=kind, **config) / "tiny", noon)

    assert (unpacked(model.opening), unpacked(model.closing)) == (opening, closing)


ONE = {"name": "default", "template": "one"}
TWO = {"name": "tool_use", "template": "two"}


@pytest.mark.parametrize(
    ("own_file", "config", "plain", "with_tools"),
    [
        ("file", {"chat_template": "config"}, "file", "file"),
        (None, {"chat_template": "{{ bos_token }}", "bos_token": "[B]"}, "[B]", "[B]"),
        (None, {"chat_template": [ONE, TWO]}, "one", "two"),
        (None, {"chat_template": [ONE]}, "one", "one"),
    ],
)
def test_where_the_chat_template_comes_from(write, noon, chat, own_file, config, plain, with_tools):
    model = load(write(template=own_file, **config) / "tiny", noon)

    assert "".join(map(str, model.pieces(chat("hi")))) == plain
    assert "".join(map(str, model.pieces(chat("hi", tools=[])))) == with_tools


def test_truncation_and_padding_of_the_file_do_not_apply(write, kinds, noon):
    directory = write(kind="gpt 2") / "tiny"
    told = json.loads((directory / "tokenizer.json").read_text())
    told["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (directory / "tokenizer.json").write_text(json.dumps(told))

    assert len(ids(load(directory, noon), "the quick brown fox jumps")) > 3 * 4


def test_equal_files_have_one_identity(write, noon):
    one = load(write("a") / "a", noon)

    assert load(write("b") / "b", noon).identity == one.identity
    assert load(write("c", bos_token="<s>") / "c", noon).identity != one.identity


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("tokenizer.json", "", "truncated"),
        ("tokenizer.json", "[]", "object"),
        ("tokenizer.json", "{}", "Model missing"),
        ("tokenizer.json", '{"added_tokens": 7}', "added_tokens"),
        ("tokenizer.json", '{"pre_tokenizer": {"type": "Nothing"}, "model": {"type": "BPE"}}', "Cannot"),
        ("tokenizer_config.json", "{", "truncated"),
        ("tokenizer_config.json", '{"chat_template": 7}', "chat_template"),
        ("chat_template.jinja", "\n{% for %}", "line 2"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(write, noon, name, content, why):
    directory = write() / "tiny"
    (directory / name).write_text(content)

    with pytest.raises(Broken, match=rf"(?s)/{name}: .*{why}"):
        load(directory, noon)


def test_a_directory_without_a_tokenizer_is_broken(tmp_path, noon):
    with pytest.raises(Broken, match=r"tokenizer\.json: there is no such file"):
        load(tmp_path, noon)
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(Broken, match=r"tokenizer\.json: Is a directory"):
        load(tmp_path, noon)


def test_long_texts_are_cut(write, noon):
    seams = load(write() / "tiny", noon).seams

    assert len(list(seams.split("the quick brown fox " * CHUNK))) > 10
