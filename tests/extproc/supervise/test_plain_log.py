import logging

import pytest

from extproc.supervise import plain_logging


@pytest.fixture
def said(monkeypatch, capsys):
    """What is on stderr after these lines were logged by a process started with this KVOY_LOG."""
    root = logging.getLogger()

    def say(level):
        monkeypatch.setattr(root, "handlers", [])
        monkeypatch.setattr(root, "level", root.level)
        monkeypatch.delenv("KVOY_LOG", raising=False)
        if level is not None:
            monkeypatch.setenv("KVOY_LOG", level)
        plain_logging()
        area = logging.getLogger("kvoy.area")
        area.debug("all")
        area.info("some %d", 1)
        area.error("bad")
        return capsys.readouterr().err.splitlines()

    return say


ALL = ["DEBUG kvoy.area all", "INFO kvoy.area some 1", "ERROR kvoy.area bad"]


@pytest.mark.parametrize(
    ("level", "lines"),
    [(None, ALL[1:]), ("", ALL[1:]), ("debug", ALL), ("DEBUG", ALL), ("error", ALL[2:]), ("CRITICAL", [])],
)
def test_the_environment_says_what_is_shown(said, level, lines):
    assert said(level) == lines


@pytest.mark.parametrize("level", ["bogus", "10", "notset", "debug "])
def test_a_level_that_is_none_is_told_and_info_is_shown(said, level):
    warning, *lines = said(level)

    assert warning == (
        f"WARNING kvoy.log KVOY_LOG={level!r} is no level, INFO is used; "
        "write one of DEBUG, INFO, WARNING, ERROR, CRITICAL"
    )
    assert lines == ALL[1:]
