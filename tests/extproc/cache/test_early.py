from extproc.cache.early import Early
from extproc.cache.frames import Frame, Namespace, Operation, packed


def a_frame(life, *hashes):
    return Frame(life, Namespace.KV, Operation.ADD, 0, packed(hashes))


def test_frames_of_a_life_are_taken_in_order_and_once():
    early = Early()
    told = [a_frame(1, 5), a_frame(2, 6), a_frame(1, 7)]
    for frame in told:
        early.keep(frame)

    assert early.take(1) == [told[0], told[2]]
    assert early.take(1) == []
    assert early.take(2) == [told[1]]


def test_what_has_waited_longest_makes_room():
    early = Early()
    big = range(1000)
    for life in range(100):
        early.keep(a_frame(life, *big))

    kept = [life for life in range(100) if early.take(life)]
    assert kept == list(range(100 - len(kept), 100))
    assert 20 <= len(kept) <= 32


def test_many_lives_of_small_frames_are_bounded_too():
    early = Early()
    for life in range(10_000):
        early.keep(a_frame(life))

    assert sum(bool(early.take(life)) for life in range(10_000)) == 2048


def test_a_life_too_big_to_keep_is_dropped():
    early = Early()
    early.keep(a_frame(1, *range(40_000)))
    early.keep(a_frame(2, 1))

    assert early.take(1) == []
    assert early.take(2) == [a_frame(2, 1)]
