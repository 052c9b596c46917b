from pathlib import Path

import pytest

from extproc.supervise import socket_path


def test_a_path_is_told_from_the_root(monkeypatch):
    monkeypatch.chdir("/tmp")

    assert socket_path(Path("x.sock")) == "/tmp/x.sock"


def test_a_path_may_have_a_hundred_bytes():
    longest = "/tmp/" + "x" * 95

    assert socket_path(Path(longest)) == longest
    for longer in (longest + "x", longest[:-1] + "é"):
        with pytest.raises(
            ValueError, match=r"xx.* is longer than the 100 bytes that a Unix socket may have"
        ):
            socket_path(Path(longer))


def test_a_path_that_is_no_text_is_refused():
    with pytest.raises(ValueError, match="is not UTF-8"):
        socket_path(Path("/tmp/\udcff.sock"))
