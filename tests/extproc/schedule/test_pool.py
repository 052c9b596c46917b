import weakref

from extproc.schedule.pool import Pool, Prompt
from extproc.schedule.testing import a_member, a_pool


class Counting:
    """An index that counts how often it is asked."""

    def __init__(self, approximate, exact):
        self.found = {"approximate": approximate, "exact": exact}
        self.asked = []

    def approximate(self, endpoints):
        self.asked.append("approximate")
        return self.found["approximate"]

    def exact(self, endpoints):
        self.asked.append("exact")
        return self.found["exact"]


def pool_of(index, members=2, prompt=1000):
    built = a_pool(*[a_member() for _ in range(members)], prompt=prompt)
    return Pool(built.prompt, built.endpoints, built.loads, built.engines, index)


def test_the_index_is_asked_once_and_only_when_somebody_wants_to_know():
    index = Counting([1, 2], None)
    pool = pool_of(index)

    assert (index.asked, pool.looked_up) == ([], None)
    assert [pool.approximate, pool.approximate, pool.exact, pool.exact] == [[1, 2], [1, 2], None, None]
    assert index.asked == ["approximate", "exact"]


def test_exact_knowledge_is_the_best_there_is():
    assert pool_of(Counting([1, 2], [3, 4])).cached == [3, 4]
    assert pool_of(Counting([1, 2], None)).cached == [1, 2]


def test_what_was_looked_up_is_named():
    pool = pool_of(Counting([1, 2], [3, 4]))
    assert pool.approximate == [1, 2]
    assert pool.looked_up == ("approximate", [1, 2])
    assert pool.exact == [3, 4]
    assert pool.looked_up == ("exact", [3, 4])


def test_no_more_is_cached_than_the_prompt_has():
    pool = pool_of(Counting([90, 100], [101, 3]), prompt=99)

    assert (pool.approximate, pool.exact) == ([90, 99], [99, 3])


def test_a_part_of_a_pool_keeps_its_columns_and_what_was_looked_up():
    pool = a_pool(a_member(1, cached=10), a_member(2, cached=20), a_member(3, cached=30, running=3))
    pool.notes = ("a note",)
    assert pool.approximate == [10, 20, 30]

    part = pool.keep([2, 0])

    assert [endpoint.key for endpoint in part.endpoints] == ["pod/default/2", "pod/default/0"]
    assert [load.requests for load in part.loads] == [3, 1]
    assert [engine is None for engine in part.engines] == [False, True]
    assert part.looked_up == ("approximate", [30, 10])
    assert (part.prompt, part.notes, len(part)) == (Prompt(1000), ("a note",), 2)
    assert [part.age_s(at) is None for at in range(2)] == [False, True]


def test_a_settled_pool_lets_the_index_go():
    class Index(Counting):
        pass

    index = Index([1, 2], None)
    gone = weakref.ref(index)
    pool = pool_of(index)
    assert pool.approximate == [1, 2]

    settled = pool.settled()
    del index, pool

    assert gone() is None
    assert settled.looked_up == ("approximate", [1, 2])
    assert (settled.approximate, settled.exact) == ([1, 2], None)


def test_a_settled_pool_does_not_invent_knowledge():
    settled = pool_of(Counting([1, 2], [1, 2])).settled()

    assert (settled.approximate, settled.exact) == ([0, 0], None)


def test_ages_are_those_of_the_decision():
    pool = a_pool(a_member(running=1), a_member())

    assert round(pool.age_s(0), 3) == 0.3
    assert pool.age_s(1) is None
    pool.observed = ()
    assert pool.age_s(0) is None
