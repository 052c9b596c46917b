from hypothesis import given
from hypothesis import strategies as st

from extproc.schedule.matched import limit, matched


def test_the_share_of_the_prompt_that_is_cached():
    assert matched([0, 250, 1000], 1000) == [0.0, 0.25, 1.0]
    assert matched([0, 5], 0) == [0.0, 0.0]


def test_only_the_beginning_counts_where_a_limit_says_so():
    assert matched([0, 50, 100, 900], 1000, most=100) == [0.0, 0.5, 1.0, 1.0]
    assert matched([0, 50], 80, most=100) == [0.0, 0.625]


def test_only_the_best_keep_their_score():
    assert matched([10, 40, 30, 20], 100, top=2) == [0.0, 0.4, 0.3, 0.0]
    assert matched([10, 40], 100, top=2) == [0.1, 0.4]


def test_equals_of_the_last_of_the_best_keep_it_too():
    assert matched([50] * 8 + [10], 100, top=5) == [0.5] * 8 + [0.0]


@given(
    st.lists(st.integers(0, 2000), min_size=1, max_size=30),
    st.integers(0, 2000),
    st.none() | st.integers(1, 3000),
    st.none() | st.integers(1, 40),
)
def test_scores_are_shares(cached, prompt, most, top):
    scores = matched(cached, prompt, most, top)

    assert len(scores) == len(cached)
    assert all(0 <= score <= 1 for score in scores)


def test_a_limit_is_the_product_of_two_numbers_of_which_one_may_be_usual():
    assert limit(None, None, (128, 64)) is None
    assert limit(10, None, (128, 64)) == 640
    assert limit(None, 16, (128, 64)) == 2048
    assert limit(10, 16, (128, 64)) == 160
