from extproc.collect.settings import Settings


def test_pods_are_looked_at_once_a_second():
    assert Settings("redis://state", "g", "127.0.0.1:9189").interval_s == 1.0
