from benchmarks.schedule.lag import lag
from benchmarks.schedule.scene import Scene


def test_what_is_published_is_heard_by_every_worker():
    statements, blocks = lag(Scene(4, 0), 2, entries_per_s=50, blocks_per_s=2000, seconds=0.5)

    assert (statements.what, blocks.what) == ("statements", "blocks")
    for row in (statements, blocks):
        assert row.workers == 2
        assert 0 < row.p50_ms <= row.p99_ms <= row.worst_ms
