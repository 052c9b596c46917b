from hypothesis import given
from hypothesis import strategies as st

from extproc.tokens.lru import OVERHEAD, Lru


def test_what_was_used_longest_ago_goes_first():
    lru: Lru[str] = Lru(2 * (10 + OVERHEAD))
    lru.put(b"a", "A", 10)
    lru.put(b"b", "B", 10)
    assert lru.get(b"a") == "A"

    lru.put(b"c", "C", 10)

    assert (lru.get(b"a"), lru.get(b"b"), lru.get(b"c")) == ("A", None, "C")


def test_what_alone_is_beyond_the_limit_is_not_kept_and_pushes_nothing_out():
    lru: Lru[str] = Lru(1000)
    lru.put(b"a", "A", 10)
    lru.put(b"b", "B", 10)

    lru.put(b"b", "BB", 1000)

    assert (lru.get(b"a"), lru.get(b"b")) == ("A", None)


def test_a_value_that_is_put_again_counts_once():
    lru: Lru[int] = Lru(2 * (10 + OVERHEAD))
    for value in range(5):
        lru.put(b"a", value, 10)
    lru.put(b"b", 1, 10)

    assert (lru.get(b"a"), lru.get(b"b")) == (4, 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 900))))
def test_the_limit_holds_and_what_is_there_is_the_latest(puts):
    lru: Lru[int] = Lru(2000)
    latest: dict[int, int] = {}
    for key, size in puts:
        lru.put(b"%d" % key, size, size)
        latest[key] = size

        assert lru.get(b"%d" % key) == size
        there = {key: size for key in latest if (size := lru.get(b"%d" % key)) is not None}
        assert there.items() <= latest.items()
        assert sum(there.values()) + OVERHEAD * len(there) <= 2000
        if sum(latest.values()) + OVERHEAD * len(latest) <= 2000 and len(puts) == len(latest):
            assert there == latest
