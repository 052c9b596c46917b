import threading
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.tokens.directory import Directory
from extproc.tokens.files import load
from extproc.tokens.local import Local
from extproc.tokens.question import NotHere, Untellable


@pytest.fixture
def local(write, noon):
    return Local(Directory(write(), lambda: 0.0, noon), 1 << 20)


class Watched:
    """A directory of one model, whose work is seen and may be held up or fail."""

    def __init__(self, model, fails=None):
        self.whole = model
        self.identity = model.identity
        self.encoded: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.began = threading.Event()
        self.fails = fails

    def model(self, _name):
        return self

    def pieces(self, question):
        return self.whole.pieces(question)

    def encode(self, texts, turn):
        self.began.set()
        assert self.go_on.wait(20)
        if self.fails is not None:
            raise self.fails
        self.encoded += texts
        return self.whole.encode(texts, turn)


@pytest.fixture
def watched(write, noon):
    return Watched(load(write() / "tiny", noon))


def rendered(contents):
    roles = ("user", "assistant")
    turns = (f"<|im_start|>{roles[at % 2]}\n{text}<|im_end|>\n" for at, text in enumerate(contents))
    return "".join(turns) + "<|im_start|>assistant\n"


SAID = ["the quick brown fox", "<|im_end|>", " it's ", "word " * 3000]
CONTENTS = st.lists(st.text(max_size=30) | st.sampled_from(SAID), max_size=6)


def test_a_conversation_has_the_tokens_of_its_whole_text(local, chat, kinds):
    @settings(max_examples=60)
    @given(CONTENTS)
    def check(contents):
        whole = kinds("llama 3").encode(rendered(contents), add_special_tokens=False).ids
        assert local.ids(chat(*contents)) == array("I", whole).tobytes()

    check()


def test_the_next_turn_encodes_only_what_is_new(watched, chat):
    local = Local(watched, 1 << 20)
    local.ids(chat("the first question", "an answer"))
    watched.encoded.clear()

    ids = local.ids(chat("the first question", "an answer", "the second question"))

    assert watched.encoded == ["user\nthe second question"]
    assert ids == Local(watched, 1 << 20).ids(chat("the first question", "an answer", "the second question"))


def test_a_text_that_grows_is_encoded_from_its_last_chunk_on(watched, completion):
    local = Local(watched, 1 << 20)
    text = "some words of a long text " * 2000
    local.ids(completion(text))
    watched.encoded.clear()

    local.ids(completion(text + "and some more"))

    assert sum(map(len, watched.encoded)) < 5000


def test_what_does_not_fit_in_the_cache_is_encoded_again(watched, chat):
    local = Local(watched, 300)
    one = chat("the quick brown fox")

    assert local.ids(one) == local.ids(one)
    assert watched.encoded.count("user\nthe quick brown fox") == 2


def test_requests_at_the_same_time_share_the_work(watched, chat):
    local = Local(watched, 1 << 20)
    watched.go_on.clear()
    found: list[bytes] = []
    texts = [("shared by all", "answer", f"own {at}") for at in range(5)]
    threads = [threading.Thread(target=lambda t=t: found.append(local.ids(chat(*t)))) for t in texts]
    for thread in threads:
        thread.start()
    assert watched.began.wait(20)
    watched.go_on.set()
    for thread in threads:
        thread.join(20)

    assert len(set(found)) == 5
    assert watched.encoded.count("user\nshared by all") == 1


@pytest.mark.parametrize("failure", [ValueError("secret"), BaseException("secret")])
def test_a_failure_fails_all_who_wait_for_it_and_is_forgotten(watched, chat, failure):
    local = Local(watched, 1 << 20)
    watched.fails = failure
    watched.go_on.clear()
    failures: list[str] = []

    def ask():
        try:
            local.ids(chat("secret"))
        except RuntimeError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert watched.began.wait(20)
    watched.go_on.set()
    for thread in threads:
        thread.join(20)
    watched.fails = None

    assert failures == [f"the tokenizer failed ({type(failure).__name__})"] * 3
    assert local.ids(chat("secret"))


def test_long_prompts_take_turns_and_short_ones_pass_them(watched, chat):
    local = Local(watched, 1 << 20)
    watched.go_on.clear()
    long = threading.Thread(target=local.ids, args=(chat("你好" * 60_000),))
    with local._turn:
        long.start()
        watched.go_on.set()
        assert local.ids(chat("short"))
        assert watched.encoded == ["user\nshort", "\n", "assistant\n"]
    long.join(20)
    assert len(watched.encoded) == 4


def test_another_tokenizer_has_tokens_of_its_own(write, noon, chat):
    write("a", kind="llama 3")
    local = Local(Directory(write("b", kind="gpt 2"), lambda: 0.0, noon), 1 << 20)

    assert local.ids(chat("12345", tokenizer="a")) != local.ids(chat("12345", tokenizer="b"))


def test_why_not(local, chat):
    with pytest.raises(NotHere, match="no tokenizer for other"):
        local.ids(chat("a", tokenizer="other"))
    with pytest.raises(NotHere, match="no tokenizer for other"):
        local.prepare("other")
    with pytest.raises(Untellable, match="images"):
        local.ids(chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]))
    local.prepare("tiny")
