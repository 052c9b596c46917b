import gc

from hypothesis import given
from hypothesis import strategies as st

from extproc.cache.chain import bytes_of
from extproc.cache.frames import numbers
from extproc.cache.generations import Generations

FINE = 64


def a_chain(name, depth=4):
    return [name * 1000 + at for at in range(depth)]


def count(generations):
    stored = generations.snapshot("")
    return len({*numbers(stored.young), *numbers(stored.old)})


def held(generations, *names):
    return [name for name in names if all(block in generations for block in a_chain(name))]


def turn(generations):
    """Start the next generation."""
    generations.rotate(generations.following)


def use(generations, *names):
    """Each as one frame; returns all that left."""
    left = []
    for name in names:
        generations.add(0, a_chain(name))
        if generations.full:
            turn(generations)
        while (some := generations.leave(3)) is not None:
            left += some
    return left


def test_what_is_not_used_leaves_first():
    generations = Generations(capacity=8 * 4 * FINE)  # 8 chains, 4 in each generation
    assert use(generations, 1, 2, 3, 4, 5, 1, 6) == []
    left = use(generations, 7)

    assert sorted(left) == sorted(a_chain(2) + a_chain(3) + a_chain(4))
    assert held(generations, 1, 2, 3, 4, 5, 6, 7) == [1, 5, 6, 7]


def test_less_is_held_than_the_capacity_and_a_frame():
    generations = Generations(capacity=100 * FINE)
    for name in range(200):
        use(generations, name)
        assert count(generations) <= 100 + 4
    assert count(generations) >= 50


def test_bytes_count_by_position():
    generations = Generations(capacity=10**9)
    chain = a_chain(1, 200)
    generations.add(0, chain[:100])
    generations.add(90, chain[90:])
    assert generations.young_bytes == bytes_of(200)

    generations.remove(190, chain[190:])
    generations.remove(190, chain[190:])
    assert generations.young_bytes == bytes_of(190)


def test_news_begin_at_the_first_block_that_is_not_young():
    generations = Generations(capacity=2 * 4 * FINE)
    assert generations.news(a_chain(1)) == 0
    generations.add(0, a_chain(1)[:2])
    assert generations.news(a_chain(1)) == 2
    generations.add(0, a_chain(1))
    assert generations.news(a_chain(1)) is None
    assert generations.news([]) is None

    turn(generations)
    assert generations.news(a_chain(1)) == 0, "being old, it has to be used again to stay"


def test_a_block_that_returns_while_its_generation_leaves_is_kept():
    generations = Generations(capacity=2 * 4 * FINE)
    use(generations, 1)
    generations.add(0, a_chain(2))
    turn(generations)
    generations.add(0, a_chain(1))

    left = []
    while (some := generations.leave(1)) is not None:
        left += some
    assert left == []
    assert held(generations, 1, 2) == [1, 2]


def test_children_leave_before_their_parents():
    generations = Generations(capacity=2 * 8 * FINE)
    generations.add(0, a_chain(1, 8))
    turn(generations)
    generations.add(0, a_chain(2, 8))
    turn(generations)

    assert generations.leave(3) == [1005, 1006, 1007]
    assert generations.leave(3) == [1002, 1003, 1004]
    assert generations.leave(3) == [1000, 1001]
    assert generations.leave(3) is None


def test_of_what_was_before_only_what_is_not_held_leaves():
    former = Generations(capacity=10**9)
    use(former, 1, 2)
    now = Generations(capacity=10**9)
    now.add(0, a_chain(2))
    now.supersede(former)

    assert now.leave(100) == a_chain(1)
    assert now.leave(100) is None


def test_a_generation_begins_once():
    generations = Generations(capacity=10**9, number=7)
    generations.add(0, a_chain(1))
    for number in (7, 6, 0, 2**64 - 1):
        generations.rotate(number)
    assert generations.news(a_chain(1)) is None

    generations.rotate(9)
    assert generations.number == 9
    assert generations.news(a_chain(1)) == 0
    generations.add(0, a_chain(2))
    generations.rotate(8)
    assert held(generations, 1, 2) == [1, 2]


def test_after_the_last_number_comes_the_first():
    generations = Generations(capacity=0, number=2**64 - 1)
    generations.add(0, a_chain(1))
    turn(generations)

    assert generations.number == 0
    assert generations.news(a_chain(1)) == 0


def test_full_is_half_of_the_capacity():
    generations = Generations(capacity=2 * 4 * FINE)
    generations.add(0, a_chain(1, 3))
    assert not generations.full
    generations.add(3, a_chain(1, 4)[3:])
    assert generations.full


def test_a_smaller_capacity_counts_at_once():
    generations = Generations(capacity=1000 * FINE)
    use(generations, *range(20))
    generations.capacity = 16 * FINE
    assert count(generations) == 80

    use(generations, 20)
    use(generations, 21, 22)
    assert held(generations, *range(23)) == [21, 22]


def test_a_capacity_of_nothing_still_knows_the_last_prompts():
    generations = Generations(capacity=0)
    use(generations, 1, 2, 3)

    assert held(generations, 1, 2, 3) == [3]


def test_a_removed_block_is_in_no_generation():
    generations = Generations(capacity=2 * 4 * FINE)
    use(generations, 1)
    generations.add(0, a_chain(1)[:1])
    generations.remove(0, a_chain(1))

    assert held(generations, 1) == []
    assert count(generations) == 0
    assert generations.young_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=60), st.integers(0, 60))
def test_a_snapshot_goes_on_as_the_original_would(uses, cut):
    def apply(generations, some):
        for name, depth in some:
            generations.add(0, a_chain(name, depth))
            if generations.full:
                turn(generations)
            while generations.leave(100) is not None:
                pass

    original = Generations(capacity=40 * FINE)
    apply(original, uses[:cut])
    snapshot = original.snapshot("1-0")
    copy = Generations(snapshot.capacity, snapshot.generation)
    copy.load_old(numbers(snapshot.old))
    copy.load_young(numbers(snapshot.young))
    copy.young_bytes = snapshot.young_bytes
    apply(original, uses[cut:])
    apply(copy, uses[cut:])

    assert copy.snapshot("2-0") == original.snapshot("2-0")


def test_the_garbage_collector_has_nothing_to_look_into():
    generations = Generations(capacity=2000 * FINE)
    use(generations, *range(400))

    assert not gc.is_tracked(generations._young)
    assert not gc.is_tracked(generations._old)
