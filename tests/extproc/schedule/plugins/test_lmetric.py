from random import Random

from hypothesis import given
from hypothesis import strategies as st

from extproc.schedule.plugins.lmetric import Lmetric, LmetricArgs
from extproc.schedule.testing import a_member, a_pool


def scores(*members, prompt=1000, role=None):
    return Lmetric(LmetricArgs()).scores(a_pool(*members, prompt=prompt, role=role), Random(1))


def best(*members, prompt=1000, role=None):
    found = scores(*members, prompt=prompt, role=role)
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


def test_a_prefill_engine_is_judged_by_when_the_prompts_turn_is_over():
    """Not by how many share the time until then: there are few long ones, or many short ones."""
    long, short = a_member(1, pending=8000), a_member(8, pending=4000)

    assert best(long, short, role="prefill") == [1]
    assert best(long, short) == [0]


def test_a_prefill_engine_with_a_prefix_is_left_when_the_queue_there_costs_more():
    holder = [a_member(1, pending=pending, cached=800) for pending in (0, 400, 600)]

    assert [best(each, a_member(), role="prefill") for each in holder] == [[0], [0], [1]]


def test_a_prefill_engine_that_hangs_loses_although_its_tokens_should_be_computed():
    assert best(a_member(3), a_member(), role="prefill") == [1]


def test_a_decode_engine_is_judged_by_its_answers_and_by_what_it_lacks():
    assert best(a_member(3), a_member(1), a_member(2), role="decode") == [1]
    assert best(a_member(3, cached=1000), a_member(), role="decode") == [0]
    assert best(a_member(4, cached=1000), a_member(), role="decode") == [1]


def test_a_decode_engine_that_computes_prompts_itself_is_busy_with_them():
    assert best(a_member(1, pending=900), a_member(4), role="decode") == [1]


def test_a_decode_engine_needs_room():
    assert best(a_member(1, kv_usage=0.9), a_member(4, kv_usage=0.2), role="decode") == [1]
    assert scores(a_member(kv_usage=0.5), a_member(kv_usage=0.0), role="decode") == [0.5, 1.0]


def test_a_full_decode_engine_is_still_compared():
    full = {"kv_usage": 1.0, "capacity_tokens": 100}

    assert best(a_member(2, **full), a_member(1, **full), role="decode") == [1]


def test_the_room_that_this_request_takes_counts():
    small, large = {"capacity_tokens": 2000}, {"capacity_tokens": 10_000}

    assert scores(a_member(kv_usage=0.0, **small), a_member(kv_usage=0.4, **large), role="decode") == [1, 1]


def test_requests_that_an_engine_was_not_seen_with_are_taken_to_need_as_much():
    """So a burst does not fill the engine that had most room at the last look."""
    seen = {"kv_usage": 0.0, "capacity_tokens": 10_000, "waiting": 1}

    known, news = scores(a_member(4, running=3, **seen), a_member(4, running=1, **seen), role="decode")

    assert (known, round(news, 6)) == (1.0, round(0.7 / 0.9, 6))


def test_unknown_room_is_that_of_the_others():
    found = scores(a_member(), a_member(kv_usage=0.8), a_member(kv_usage=0.4), role="decode")

    assert [round(each, 6) for each in found] == [round(0.4 / 0.6, 6), round(0.2 / 0.6, 6), 1.0]
    assert scores(a_member(), a_member(), role="decode") == [1.0, 1.0]


member = st.builds(
    a_member,
    st.integers(0, 2000),
    st.integers(0, 10**7),
    st.integers(0, 3000),
    st.none() | st.integers(0, 3000),
    running=st.none() | st.integers(0, 3000),
    kv_usage=st.none() | st.floats(0, 1),
    capacity_tokens=st.none() | st.integers(0, 10**6),
)


@given(
    st.lists(member, min_size=1, max_size=20),
    st.integers(0, 2000),
    st.sampled_from([None, "prefill", "decode"]),
)
def test_somebody_always_scores_1_and_nobody_0(members, prompt, role):
    found = scores(*members, prompt=prompt, role=role)

    assert max(found) == 1.0
    assert min(found) > 0.0


def test_the_figures_tell_the_cost():
    (figures,) = Lmetric(LmetricArgs()).raw(a_pool(a_member(2, pending=399, cached=640)))

    assert figures == "cost 2400: 360 uncached + 640/16 cached + 399 pending tokens, 2 in flight"


def test_the_figures_tell_the_cost_of_each_role():
    member = a_member(2, pending=399, cached=640, kv_usage=0.5)
    figures = [Lmetric(LmetricArgs()).raw(a_pool(member, role=role))[0] for role in ("prefill", "decode")]

    assert figures == [
        "cost 1312: 360 uncached + 640/16 cached + 399 pending tokens, 2 in flight",
        "cost 3054: 2 in flight, 360 uncached + 399 pending tokens, 50% room",
    ]
