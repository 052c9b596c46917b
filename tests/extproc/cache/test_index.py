import gc
import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.cache.index import Index

LIVES = range(1000, 1006)


def spread(number):
    """A hash whose shard is any of all."""
    return number * 0x9E3779B97F4A7C15 % 2**64


CHAINS = [[spread(branch * 100 + at if at >= 4 else at) for at in range(40)] for branch in (1, 2, 3)]
"""Three prompts whose first 4 blocks are the same."""


def true_depth(held, chain):
    return next((at for at, block in enumerate(chain) if block not in held), len(chain))


def clean(index):
    steps = 0
    while index.scrub():
        steps += 1
        assert steps < 10_000
    return steps


@st.composite
def _closed_traces(draw):
    """Steps in which a life gains the start of a chain, loses the end of one, or is forgotten."""
    kind = st.sampled_from(["gain", "gain", "lose", "forget", "scrub"])
    step = st.tuples(kind, st.sampled_from(LIVES), st.sampled_from(range(3)), st.integers(0, 40))
    return draw(st.lists(step, max_size=40))


def shorten(index, held, life, depth, branch):
    """Take what is beyond `depth` in the chain, and in the others where they share it."""
    gone = set(CHAINS[branch][depth:])
    for chain in CHAINS:
        at = next((at for at, block in enumerate(chain) if block in gone), len(chain))
        gone |= set(chain[at:])
    index.remove(life, gone)
    held[life] -= gone


@given(_closed_traces())
@settings(max_examples=150)
def test_depths_are_those_of_sets(trace):
    index, held = Index(), {life: set() for life in LIVES}
    for kind, life, branch, depth in trace:
        if kind == "gain":
            index.add(life, CHAINS[branch][:depth])
            held[life] |= set(CHAINS[branch][:depth])
        elif kind == "lose":
            shorten(index, held, life, depth, branch)
        elif kind == "forget":
            index.forget(life)
            held[life] = set()
        else:
            index.scrub()
        for chain in CHAINS:
            assert index.depths(chain, LIVES) == [true_depth(held[life], chain) for life in LIVES]
    clean(index)
    assert len(index) == len(set().union(*held.values()))


@given(st.lists(st.sets(st.integers(0, 39)), min_size=1, max_size=6))
def test_with_holes_a_depth_is_never_too_small_and_ends_at_a_held_block(holdings):
    index, chain = Index(), CHAINS[0]
    for life, positions in enumerate(holdings):
        index.add(life, [chain[at] for at in positions])

    for depth, positions in zip(index.depths(chain, range(len(holdings))), holdings, strict=True):
        held = {chain[at] for at in positions}
        assert depth >= true_depth(held, chain)
        assert depth == 0 or chain[depth - 1] in held
        assert depth == 0 or chain[0] in held


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200))
def test_many_lives_of_any_depth(depths):
    """More lives than a machine word has bits."""
    index, chain = Index(), CHAINS[0]
    for life, depth in enumerate(depths):
        index.add(life, chain[:depth])

    assert index.depths(chain, range(len(depths))) == depths
    reaches = index.matches(chain)
    assert [depth for depth, _ in reaches] == sorted(set(depths) - {0})


def test_depths_are_in_the_order_asked_for_and_0_for_the_unknown():
    index = Index()
    index.add(1, CHAINS[0][:7])
    index.add(2, CHAINS[0][:9])

    assert index.depths(CHAINS[0], [2, 77, 1, 2]) == [9, 0, 7, 9]
    assert index.depths([], [1, 2]) == [0, 0]
    assert index.depths([5], [1, 2]) == [0, 0]
    assert index.depths(CHAINS[0], []) == []


def test_a_forgotten_life_holds_nothing_at_once_and_its_bit_is_clean_when_taken_again():
    index = Index()
    index.add(1, CHAINS[0])
    index.add(2, CHAINS[0][:5])
    index.forget(1)

    assert index.depths(CHAINS[0], [1, 2]) == [0, 5]
    clean(index)
    assert len(index) == 5
    index.add(3, [])
    assert index.depths(CHAINS[0], [1, 2, 3]) == [0, 5, 0]
    assert index.matches(CHAINS[0]) == [(5, 2)]


def test_a_life_that_is_forgotten_while_another_is_scrubbed_is_scrubbed_next():
    index = Index()
    hashes = [spread(at) for at in range(5000)]
    for life in (1, 2, 3):
        index.add(life, hashes)
    index.forget(1)
    assert index.scrub()
    index.forget(2)
    clean(index)

    index.add(4, [])
    index.add(5, [])
    assert index.depths(hashes, [3, 4, 5]) == [5000, 0, 0]
    index.forget(3)
    clean(index)
    assert len(index) == 0


def test_a_step_of_scrubbing_is_bounded():
    index = Index()
    index.add(1, [spread(at) for at in range(50_000)])
    index.forget(1)
    sizes = [len(index)]
    while index.scrub():
        sizes.append(len(index))

    assert max(before - after for before, after in pairwise(sizes)) <= 1200


def test_what_a_forgotten_life_shared_can_still_be_removed():
    index = Index()
    index.add(1, [5])
    index.add(2, [5])
    index.forget(1)
    index.remove(2, [5])
    index.remove(2, [5])
    clean(index)

    assert len(index) == 0


def test_a_removal_by_a_life_that_holds_nothing_changes_nothing():
    index = Index()
    index.add(1, CHAINS[0][:5])
    index.remove(2, CHAINS[0])
    index.remove(1, CHAINS[1][4:])

    assert index.depths(CHAINS[0], [1, 2]) == [5, 0]


def test_lives_that_come_and_go_leave_nothing_behind():
    index, rng = Index(), random.Random(1)
    for life in range(300):
        index.add(life, [rng.getrandbits(64) for _ in range(20)])
        if life >= 4:
            index.forget(life - 4)
        index.scrub()
    clean(index)

    assert len(index) == 80
    index.add(1000, [1])
    assert index.matches([1])[0][1] <= 1 << 16


def test_the_garbage_collector_has_nothing_to_look_into():
    index = Index()
    index.add(1, [spread(at) for at in range(5000)])
    index.add(2, [spread(at) for at in range(2000)])
    index.remove(1, [spread(at) for at in range(500)])

    assert not any(gc.is_tracked(shard) for shard in index._shards if shard)
