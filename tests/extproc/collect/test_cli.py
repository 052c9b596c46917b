import pytest
from click.testing import CliRunner

from extproc import supervise
from extproc.collect.cli import collector


@pytest.fixture
def started(monkeypatch):
    """What was asked to be kept running."""
    kept = []

    async def keep_running(children, ready, during):
        kept.append((children, ready))

    monkeypatch.setattr(supervise, "keep_running", keep_running)
    return kept


def kvoy_collector(*args):
    result = CliRunner().invoke(collector, args)
    return result.exit_code, result.output


def test_options_become_a_child(started):
    code, said = kvoy_collector(
        *(
            "--redis",
            "redis://me:secret@state",
            "--group",
            "blue",
            "--admin",
            "127.0.0.1:0",
            "--interval",
            "0.5",
        )
    )

    assert code == 0, said
    (((child,), ready),) = started
    assert " ".join(child.argv).endswith("--interval 0.5")
    assert "--admin 127.0.0.1:0" not in " ".join(child.argv)
    assert "Redis at redis://state" in child.hint
    assert ready.startswith("kvoy collector is ready: admin http://127.0.0.1:")


def test_the_redis_may_come_from_the_environment(started, monkeypatch):
    monkeypatch.setenv("KVOY_REDIS", "redis://state")

    assert kvoy_collector("--admin", "127.0.0.1:0")[0] == 0
    assert len(started) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--redis", "http://state"),
        ("--group", "a{b"),
        ("--admin", "localhost:9189"),
        ("--admin", "9189"),
        ("--interval", "0"),
        ("--interval", "soon"),
    ],
)
def test_a_bad_option_is_refused_by_name_before_anything_starts(started, option, value):
    code, said = kvoy_collector("--redis", "redis://state", "--admin", "127.0.0.1:0", option, value)

    assert code == 2
    assert f"Invalid value for '{option}'" in said
    assert started == []


def test_help_has_examples():
    code, said = kvoy_collector("--help")

    assert code == 0
    assert "kvoy collector --redis redis://state:6379" in said
