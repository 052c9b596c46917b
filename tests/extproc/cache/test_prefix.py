import pytest

from extproc.cache import frames
from extproc.cache.frames import Frame, Namespace, Operation, packed
from extproc.cache.prefix import Prefix
from extproc.cache.slices import SLICE

LIFE = 7
CHAIN = list(range(100, 300))
PLENTY = 10**9


@pytest.fixture
def prefix():
    prefix = Prefix()
    prefix.enroll(LIFE, PLENTY)
    return prefix


def add(*hashes, first=0):
    return Frame(LIFE, Namespace.PREFIX, Operation.ADD, first, packed(hashes))


def remove(*hashes, first=0):
    return Frame(LIFE, Namespace.PREFIX, Operation.REMOVE, first, packed(hashes))


def depth(prefix, chain=CHAIN):
    return prefix.index.depths(chain, [LIFE])[0]


def test_an_added_chain_is_held(prefix):
    sizes = list(prefix.apply(add(*CHAIN)))

    assert depth(prefix) == 200
    assert sum(sizes) == 200
    assert max(sizes) <= SLICE


def test_nothing_changes_before_the_change_runs(prefix):
    change = prefix.apply(add(*CHAIN))
    assert depth(prefix) == 0

    next(change)
    assert depth(prefix) == SLICE


def test_the_end_of_a_chain_is_removed(prefix):
    list(prefix.apply(add(*CHAIN)))
    list(prefix.apply(remove(*CHAIN[90:], first=90)))

    assert depth(prefix) == 90
    assert prefix.generations(LIFE).news(CHAIN) == 90


def test_positions_of_later_slices_follow_the_first(prefix):
    list(prefix.apply(add(*CHAIN[10:], first=10)))

    assert prefix.generations(LIFE).young_bytes == 54 * 64 + 128 * 256 + 8 * 1024


def test_a_rotation_takes_what_left_out_of_the_index(prefix):
    list(prefix.apply(add(1, 2, 3, 4)))
    list(prefix.apply(frames.rotate(LIFE, 1)))
    list(prefix.apply(add(5, 6, 7, 8)))
    assert depth(prefix, [1, 2, 3, 4]) == 4
    list(prefix.apply(frames.rotate(LIFE, 1)))
    assert depth(prefix, [1, 2, 3, 4]) == 4
    list(prefix.apply(frames.rotate(LIFE, 2)))

    assert depth(prefix, [1, 2, 3, 4]) == 0
    assert depth(prefix, [5, 6, 7, 8]) == 4
    assert len(prefix.index) == 4


def test_a_cleared_life_holds_nothing_and_keeps_its_capacity(prefix):
    list(prefix.apply(frames.rotate(LIFE, 5)))
    list(prefix.apply(add(*CHAIN)))
    list(prefix.apply(frames.clear(LIFE, Namespace.PREFIX)))

    assert depth(prefix) == 0
    assert prefix.generations(LIFE).capacity == PLENTY
    assert prefix.generations(LIFE).number == 5
    list(prefix.apply(add(*CHAIN[:3])))
    assert depth(prefix) == 3


def test_a_snapshot_replaces_everything(prefix):
    list(prefix.apply(add(*CHAIN)))
    stored = prefix.generations(LIFE).snapshot("9-1")
    other = Prefix()
    other.enroll(LIFE, 5)
    list(other.apply(add(1, 2, 3)))
    list(other.load(LIFE, stored))

    assert depth(other) == 200
    assert depth(other, [1, 2, 3]) == 0
    assert other.generations(LIFE).snapshot("9-1") == stored


def test_a_clear_counts_in_its_turn(prefix):
    changes = [
        prefix.apply(change)
        for change in (frames.capacity(LIFE, 77), frames.clear(LIFE, Namespace.PREFIX), add(1, 2))
    ]
    for change in changes:
        list(change)

    assert prefix.generations(LIFE).capacity == 77


def test_what_a_snapshot_has_too_is_held_all_the_while(prefix):
    list(prefix.apply(add(*CHAIN)))
    stored = prefix.generations(LIFE).snapshot("9-1")
    list(prefix.apply(add(*CHAIN, 1, 2, 3)))
    for _ in prefix.load(LIFE, stored):
        assert depth(prefix) == 200

    assert depth(prefix, [1]) == 0
    assert len(prefix.index) == 200


def test_a_retired_life_is_out_of_the_index(prefix):
    list(prefix.apply(add(*CHAIN)))
    prefix.retire(LIFE)

    assert depth(prefix) == 0
    with pytest.raises(KeyError):
        prefix.generations(LIFE)
