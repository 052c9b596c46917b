from benchmarks.schedule.alongside import Load, alongside
from benchmarks.schedule.scene import Scene


def test_decisions_are_made_while_the_index_changes():
    scene = Scene(4, 500, exact=True)
    (found,) = alongside(scene, Load([8], seconds=0.3, passes=2, rate=100, events_per_s=2000))

    assert [len(each) > 5 for each in found.passes] == [True, True]
    assert found.held.longest_s > 0
    assert (found.workers, found.events_per_s) == (2, 2000)
    assert found.index_entries > 500, "the snapshots were loaded, and more was heard or learnt"
