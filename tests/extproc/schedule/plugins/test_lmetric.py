from random import Random

from hypothesis import given
from hypothesis import strategies as st

from extproc.schedule.plugins.lmetric import Lmetric, LmetricArgs
from extproc.schedule.testing import a_member, a_pool


def scores(*members, prompt=1000):
    return Lmetric(LmetricArgs()).scores(a_pool(*members, prompt=prompt), Random(1))


def best(*members, prompt=1000):
    found = scores(*members, prompt=prompt)
    return [at for at, score in enumerate(found) if score == max(found)]


def test_of_idle_engines_the_one_that_has_the_prefix_wins():
    assert best(a_member(), a_member(cached=512), a_member(cached=64)) == [1]


def test_of_engines_without_the_prefix_the_one_with_least_to_do_wins():
    assert best(a_member(3), a_member(1), a_member(2)) == [1]
    assert best(a_member(1, pending=4000), a_member(1, pending=100)) == [1]


def test_the_best_scores_1_and_the_others_as_much_less_as_they_cost_more():
    assert scores(a_member(), a_member(1), a_member(pending=1001)) == [1.0, 0.5, 0.5]


def test_a_prefix_that_everybody_shares_spreads():
    """A free cached token would hold every request on the one engine that has it."""
    holder = [a_member(requests, cached=1000) for requests in (5, 14, 16)]

    assert [best(each, a_member()) for each in holder] == [[0], [0], [1]]


def test_with_the_same_prefix_everywhere_load_decides():
    assert best(a_member(4, cached=1000), a_member(3, cached=1000), a_member(5, cached=1000)) == [1]


def test_an_empty_prompt_goes_to_the_fewest_in_flight():
    assert best(a_member(2), a_member(0), a_member(1), prompt=0) == [1]


def test_what_the_collector_knows_or_does_not_changes_nothing():
    assert scores(a_member(2, cached=100), a_member(2, cached=100, running=50, kv_usage=1.0)) == [1.0, 1.0]


def test_exact_knowledge_replaces_the_estimate():
    assert best(a_member(cached=900, exact=0), a_member(cached=0, exact=16)) == [1]
    assert not Lmetric(LmetricArgs()).wants_exact
    assert Lmetric(LmetricArgs(exact=True)).wants_exact


member = st.builds(
    a_member,
    st.integers(0, 2000),
    st.integers(0, 10**7),
    st.integers(0, 3000),
    st.none() | st.integers(0, 3000),
)


@given(st.lists(member, min_size=1, max_size=20), st.integers(0, 2000))
def test_somebody_always_scores_1_and_nobody_0(members, prompt):
    found = scores(*members, prompt=prompt)

    assert max(found) == 1.0
    assert min(found) > 0.0


def test_the_figures_tell_the_cost():
    (figures,) = Lmetric(LmetricArgs()).raw(a_pool(a_member(2, pending=399, cached=640)))

    assert figures == "cost 2400: 360 uncached + 640/16 cached + 399 pending tokens, 2 in flight"
