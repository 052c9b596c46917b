import pytest

from benchmarks.schedule.quiet import quiet
from benchmarks.schedule.scene import Scene


@pytest.mark.parametrize("exact", [False, True])
def test_each_size_is_measured_in_each_pass(exact):
    found = quiet(None, Scene(4, 100, exact), [8, 16], 5, 3)
    assert [decisions.blocks for decisions in found] == [8, 16]
    assert [list(map(len, decisions.passes)) for decisions in found] == [[5, 5, 5]] * 2
    assert all(decisions.index_entries >= 100 for decisions in found)
