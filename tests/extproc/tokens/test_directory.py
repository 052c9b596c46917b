import logging
import shutil
import threading

import pytest

from extproc.tokens.directory import LOOK_AGAIN_S, Directory
from extproc.tokens.question import NotHere


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now

    def later(self) -> None:
        self.now += LOOK_AGAIN_S


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def directory(tmp_path, clock, noon):
    return Directory(tmp_path / "tokenizers", clock, noon)


def test_a_model_is_read_once(write, directory, clock):
    write()
    first = directory.model("tiny")
    clock.later()

    assert directory.model("tiny") is first


def test_a_name_may_have_slashes(write, directory):
    write("vendor/model-7b")

    assert directory.model("vendor/model-7b").template is not None


@pytest.mark.parametrize(
    "name", ["../tiny", "a/../../tiny", "/etc", "nothing", "", "tiny/tokenizer.json", "a\0b"]
)
def test_another_name_is_no_tokenizer(write, directory, tmp_path, name):
    root = write()
    shutil.copytree(root / "tiny", tmp_path / "tiny")

    with pytest.raises(NotHere, match="there is no tokenizer for"):
        directory.model(name)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja", "tokenizer.json"])
def test_a_changed_file_is_read_when_it_is_time_to_look_again(write, directory, clock, file):
    first = (write(), directory.model("tiny"))[1]
    write(
        kind="gpt 2" if file == "tokenizer.json" else "llama 3",
        template="new" if "jinja" in file else "",
        a="new",
    )
    assert directory.model("tiny") is first

    clock.later()

    assert directory.model("tiny").identity != first.identity


def test_a_tokenizer_that_comes_later_is_found(write, directory, clock):
    with pytest.raises(NotHere):
        directory.model("tiny")
    write()
    clock.later()

    assert directory.model("tiny")


def test_a_tokenizer_that_goes_is_gone(write, directory, clock):
    root = write()
    directory.model("tiny")
    shutil.rmtree(root / "tiny")
    clock.later()

    with pytest.raises(NotHere, match="there is no tokenizer for tiny in"):
        directory.model("tiny")


def test_a_broken_one_is_named_in_the_log_once(write, directory, clock, caplog):
    root = write()
    (root / "tiny" / "tokenizer.json").write_text("{")

    for _ in range(3):
        with pytest.raises(NotHere, match=r"the tokenizer is broken: .*/tiny/tokenizer\.json"):
            directory.model("tiny")
        clock.later()

    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "tiny/tokenizer.json" in caplog.text


def test_a_change_that_breaks_it_leaves_the_last_good_one(write, directory, clock, caplog):
    root = write()
    first = directory.model("tiny")
    (root / "tiny" / "chat_template.jinja").write_text("{% for %}")
    clock.later()
    assert directory.model("tiny") is first
    assert "chat_template.jinja" in caplog.text

    write()
    clock.later()

    assert directory.model("tiny").identity == first.identity


def test_threads_read_it_once(write, directory, caplog):
    write()
    caplog.set_level(logging.INFO, "kvoy.tokens")
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(directory.model("tiny"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert len(caplog.records) == 1
