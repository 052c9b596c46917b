import pytest

from benchmarks.schedule.apart import apart
from benchmarks.schedule.memory import memory, rss, soak
from benchmarks.schedule.scene import Scene


@pytest.mark.parametrize("exact", [False, True])
def test_entries_weigh_something(exact):
    row = apart(memory, Scene(4, 20_000, exact))
    assert (row.index, row.index_entries) == ("kv" if exact else "prefix", 20_000)
    assert 8 < row.bytes_per_entry < 10_000


def test_memory_is_told_along_the_way(capsys):
    rows = soak(None, Scene(4, 0), 100)
    assert [row.decisions for row in rows] == [1, 10, 25, 50, 75, 100]
    assert all(row.rss_mb > 10 for row in rows)
    assert rows[-1].index_entries > 256
    assert "100 decisions" in capsys.readouterr().err


def test_rss_grows_with_what_is_held():
    before = rss()
    held = bytearray(b"1") * (64 << 20)
    assert rss() - before > 32 << 20
    del held
