from pathlib import Path

import pytest

from controller import settings


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("1", 1), ("65536", 65536), ("10B", 10), ("512KiB", 524288), ("16MiB", 16777216), ("3GiB", 3221225472)],
)
def test_sizes(text, bytes_):
    assert settings.size(text) == bytes_


@pytest.mark.parametrize("text", ["", "0", "-1", "16MB", "16 MiB", "1.5GiB", "4GiB", "MiB", "9" * 5000, "١"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="write it as in 16MiB"):
        settings.size(text)


def test_a_socket_becomes_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir("/tmp")

    assert settings.socket("x.sock") == "/tmp/x.sock"


def test_a_socket_needs_a_directory_and_a_short_path():
    with pytest.raises(ValueError, match="/nowhere is not a directory"):
        settings.socket("/nowhere/x.sock")
    with pytest.raises(ValueError, match="is longer than the 100 bytes that a Unix socket may have"):
        settings.socket("/tmp/" + "x" * 96)
    assert settings.socket(str(Path("/tmp") / ("x" * 95)))


def test_workers():
    given = ("extproc-0=/run/0.sock", "extproc-1=/run/a=b.sock")

    assert settings.workers(given) == (("extproc-0", "/run/0.sock"), ("extproc-1", "/run/a=b.sock"))


@pytest.mark.parametrize("text", ["extproc-0", "=/run/0.sock", "extproc-0=", "extproc-0=run/0.sock", ""])
def test_what_is_no_worker(text):
    with pytest.raises(ValueError, match="is not NAME=SOCKET"):
        settings.workers((text,))


def test_a_workers_socket_needs_a_short_path():
    with pytest.raises(ValueError, match="is longer than the 100 bytes that a Unix socket may have"):
        settings.workers(("extproc-0=/run/0.sock", "extproc-1=/run/" + "x" * 100))


def test_two_workers_of_one_name():
    with pytest.raises(ValueError, match="a name of its own"):
        settings.workers(("a=/x", "a=/y"))
