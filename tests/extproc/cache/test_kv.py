import pytest

from extproc.cache import frames
from extproc.cache.frames import Frame, Namespace, Operation, packed
from extproc.cache.kv import Kv
from extproc.cache.slices import SLICE
from extproc.cache.snapshots import KvSnapshot

LIFE = 7
CHAIN = list(range(100, 300))


def change(operation, *hashes):
    return Frame(LIFE, Namespace.KV, operation, 0, packed(hashes))


def depth(kv):
    return kv.index.depths(CHAIN, [LIFE])[0]


def holding(*hashes):
    kv = Kv()
    list(kv.apply(change(Operation.ADD, *hashes)))
    return kv


def test_blocks_come_and_go():
    kv = Kv()
    assert max(kv.apply(change(Operation.ADD, *CHAIN))) <= SLICE
    assert depth(kv) == 200

    list(kv.apply(change(Operation.REMOVE, *CHAIN[150:])))
    assert depth(kv) == 150


def test_a_cleared_life_holds_nothing_and_starts_again():
    kv = holding(*CHAIN)
    list(kv.apply(frames.clear(LIFE, Namespace.KV)))
    assert depth(kv) == 0

    list(kv.apply(change(Operation.ADD, *CHAIN[:2])))
    assert depth(kv) == 2


@pytest.mark.parametrize("operation", [Operation.CAPACITY, Operation.ROTATE])
def test_capacities_change_nothing(operation):
    kv = holding(*CHAIN)
    list(kv.apply(change(operation, 1)))

    assert depth(kv) == 200


def test_a_snapshot_replaces_everything():
    kv = holding(*CHAIN)
    own = packed(CHAIN[:70])
    list(kv.load(LIFE, KvSnapshot("1-0", own, own, bytes(4 * 70), 5)))

    assert depth(kv) == 70


def test_a_retired_life_holds_nothing():
    kv = holding(*CHAIN)
    kv.retire(LIFE)

    assert depth(kv) == 0
