from array import array

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from benchmarks.engine.cache import BlockCache, Lease, chain, root

SIZE = 4


def blocks_of(tokens: list[int], adapter: str | None = None, salt: str | None = None) -> list[bytes]:
    return chain(root(adapter, salt), array("I", tokens), SIZE)


def take(cache: BlockCache, tokens: list[int], answer: int = 0) -> Lease:
    taken = cache.take(blocks_of(tokens), len(tokens), len(tokens) + answer)
    assert taken is not None
    return taken[0]


def served(cache: BlockCache, tokens: list[int]) -> int:
    """Serve a prompt; returns its hits."""
    lease = take(cache, tokens)
    cache.computed(lease)
    cache.release(lease)
    return lease.hits


def test_only_full_blocks_have_a_hash() -> None:
    assert [len(blocks_of([1] * length)) for length in (0, 3, 4, 7, 8)] == [0, 0, 1, 1, 2]


def test_a_block_is_told_apart_by_everything_before_it() -> None:
    assert blocks_of([1, 1, 1, 1, 9, 9, 9, 9])[1] != blocks_of([2, 2, 2, 2, 9, 9, 9, 9])[1]


def test_adapters_and_salts_share_nothing() -> None:
    prompts = [blocks_of([1] * 8, *who) for who in ((None, None), ("a", None), (None, "a"), ("b", None))]
    assert len({block for prompt in prompts for block in prompt}) == 8


def test_a_chain_can_be_continued() -> None:
    tokens = array("I", range(20))
    whole = chain(root(None, None), tokens, SIZE)
    assert whole[2:] == chain(whole[1], tokens[2 * SIZE :], SIZE)


def test_a_second_prompt_hits_the_common_prefix() -> None:
    cache = BlockCache(100, SIZE)
    assert served(cache, [1] * 8 + [2] * 5) == 0
    assert served(cache, [1] * 8 + [3] * 5) == 2


def test_the_last_block_of_a_wholly_cached_prompt_is_computed_again() -> None:
    cache = BlockCache(100, SIZE)
    served(cache, [1] * 8)
    assert served(cache, [1] * 8) == 1
    assert served(cache, [1] * 9) == 2


def test_a_running_prompt_can_be_hit() -> None:
    cache = BlockCache(100, SIZE)
    first = take(cache, [1] * 9)
    second = take(cache, [1] * 9)
    assert (first.hits, second.hits) == (0, 2)
    assert cache.used == 4  # two shared blocks and one of their own each


def test_room_is_made_by_dropping_the_least_recently_used() -> None:
    cache = BlockCache(4, SIZE)
    served(cache, [1] * 5)
    served(cache, [2] * 5)
    served(cache, [1] * 5)
    served(cache, [3] * 13)
    assert cache.idle <= 4
    assert served(cache, [2] * 5) == 0


def test_the_end_of_a_prompt_is_dropped_before_its_start() -> None:
    cache = BlockCache(4, SIZE)
    served(cache, [1] * 13)
    served(cache, [2] * 5)
    assert served(cache, [1] * 13) == 2


def test_no_room_changes_nothing() -> None:
    cache = BlockCache(4, SIZE)
    held = take(cache, [1] * 9)
    assert cache.take(blocks_of([1] * 9 + [2] * 8), 17, 17) is None
    assert cache.used == 3
    cache.computed(held)
    cache.release(held)
    assert (cache.used, cache.idle) == (0, 2)


def test_a_prompt_that_was_never_computed_leaves_nothing_to_hit() -> None:
    cache = BlockCache(10, SIZE)
    cache.release(take(cache, [1] * 12))
    assert (cache.used, cache.idle) == (0, 0)
    assert served(cache, [1] * 12) == 0


def test_an_aborted_prompt_keeps_the_blocks_that_were_there_before() -> None:
    cache = BlockCache(10, SIZE)
    served(cache, [1] * 8)
    cache.release(take(cache, [1] * 8 + [2] * 8))
    assert served(cache, [1] * 9) == 2


def test_what_an_aborted_prompt_left_undone_is_computed_by_who_hit_it() -> None:
    cache = BlockCache(10, SIZE)
    aborted, other = take(cache, [1] * 9), take(cache, [1] * 9)
    cache.release(aborted)
    assert cache.computed(other) == [range(0, 2)]
    cache.release(other)
    assert served(cache, [1] * 9) == 2


def test_a_block_is_computed_once() -> None:
    cache = BlockCache(10, SIZE)
    first, second = take(cache, [1] * 9), take(cache, [1] * 8 + [2] * 5)
    assert cache.computed(first) == [range(0, 2)]
    assert cache.computed(second) == [range(2, 3)]


def test_the_next_turn_hits_the_answer() -> None:
    cache = BlockCache(10, SIZE)
    turn = [1] * 6
    answer = [7] * 7
    lease = take(cache, turn, len(answer))
    cache.computed(lease)
    for name in blocks_of([*turn, *answer[:-1]])[1:]:
        cache.fill(lease, name)
    cache.release(lease)
    assert take(cache, [*turn, *answer, 5, 5]).hits == 3


def test_what_is_computed_twice_is_there_twice_until_each_copy_goes() -> None:
    cache = BlockCache(4, SIZE)
    (name,) = blocks_of([1] * 4)
    for _ in range(2):  # the only block of the prompt is always computed again
        assert served(cache, [1] * 4) == 0
    assert cache.idle == 2
    lost = []
    for token, room in ((2, 12), (3, 16)):
        lease, gone = cache.take(blocks_of([token] * room), room, room)
        lost += gone
        cache.release(lease)
    assert lost == [name, name]
    assert served(cache, [1] * 5) == 0


def test_an_idle_cache_can_be_cleared() -> None:
    cache = BlockCache(10, SIZE)
    served(cache, [1] * 12)
    assert cache.clear()
    assert (cache.idle, served(cache, [1] * 12)) == (0, 0)


def test_a_cache_in_use_cannot_be_cleared() -> None:
    cache = BlockCache(10, SIZE)
    served(cache, [1] * 12)
    held = take(cache, [1] * 12)
    assert not cache.clear()
    cache.release(held)
    assert served(cache, [1] * 12) == 2


class Cache(RuleBasedStateMachine):
    """Whatever the order of requests, blocks are neither lost nor made."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = BlockCache(12, SIZE)
        self.held: list[tuple[Lease, list[int]]] = []

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=24), answer=st.integers(0, 12))
    def begin(self, tokens: list[int], answer: int) -> None:
        before = (self.cache.used, self.cache.idle)
        taken = self.cache.take(blocks_of(tokens), len(tokens), len(tokens) + answer)
        if taken is None:
            assert (self.cache.used, self.cache.idle) == before
            return
        lease, _ = taken
        assert lease.hits * SIZE < len(tokens)
        assert len(lease.named) + lease.private == -(-(len(tokens) + answer) // SIZE)
        self.held.append((lease, tokens))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), computed=st.booleans(), answered=st.integers(0, 12))
    def end(self, data: st.DataObject, computed: bool, answered: int) -> None:
        lease, tokens = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if computed:
            self.cache.computed(lease)
            names = blocks_of([*tokens, *[3] * answered])[len(blocks_of(tokens)) :]
            for name in names[: lease.private]:
                self.cache.fill(lease, name)
        self.cache.release(lease)

    @rule()
    def clear(self) -> None:
        assert self.cache.clear() == (not self.held)

    @invariant()
    def blocks_add_up(self) -> None:
        assert 0 <= self.cache.used + self.cache.idle <= 12
        assert 0 <= self.cache.usage <= 1
        if not self.held:
            assert self.cache.used == 0


TestCache = Cache.TestCase


def test_only_computed_blocks_are_known() -> None:
    cache = BlockCache(100, SIZE)
    served(cache, [1] * 8)
    lease = take(cache, [1] * 8 + [2] * 8)
    assert cache.known(blocks_of([1] * 8 + [2] * 8)) == 2
    cache.computed(lease)
    assert cache.known(blocks_of([1] * 8 + [2] * 8 + [3] * 8)) == 4
    assert cache.known(blocks_of([9] * 8)) == 0
