import json
from itertools import pairwise
from random import Random

from benchmarks.replicas.trace import Shape, burst, conversations

SHAPE = Shape(tenants=3, conversations=20, turns=4, rate=50.0)


def test_a_trace_is_the_same_for_the_same_seed():
    assert conversations(SHAPE, Random(1)) == conversations(SHAPE, Random(1))
    assert conversations(SHAPE, Random(1)) != conversations(SHAPE, Random(2))


def test_arrivals_are_in_order_and_as_many_as_the_turns():
    trace = conversations(SHAPE, Random(1))

    assert len(trace) == 80
    assert [arrival.at_s for arrival in trace] == sorted(arrival.at_s for arrival in trace)


def test_every_turn_continues_the_one_before():
    trace = conversations(Shape(conversations=1, turns=5), Random(1))
    turns = [json.loads(arrival.messages) for arrival in trace]

    for before, after in pairwise(turns):
        assert after[: len(before)] == before
    assert [message["role"] for message in turns[1]] == ["system", "user", "assistant", "user"]


def test_conversations_of_a_tenant_share_their_beginning():
    trace = conversations(SHAPE, Random(1))

    assert len({json.loads(arrival.messages)[0]["content"] for arrival in trace}) == 3


def test_a_burst_is_one_prompt_many_times():
    shots = burst(2.0, 16, 4000, Random(1))

    assert len(shots) == 16
    assert len({shot.messages for shot in shots}) == 1
    assert all(shot.at_s == 2.0 for shot in shots)
    assert burst(0.0, 1, 4000, Random(2))[0].messages != shots[0].messages
