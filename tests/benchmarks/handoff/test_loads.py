import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine import tokens
from benchmarks.handoff.fleets import TOGETHER
from benchmarks.handoff.loads import LOADS, Load


def a_load(prompt: int = 64, answer: int = 8, rate: float = 0.0, clients: int = 0) -> Load:
    return Load("some", prompt, answer, (TOGETHER,), rate, clients)


@given(st.floats(0.1, 50.0), st.floats(0.1, 60.0), st.integers())
def test_requests_leave_in_order_and_in_time(rate: float, seconds: float, seed: int) -> None:
    found = a_load(rate=rate).arrivals(seconds, Random(seed))
    assert found
    assert found == sorted(found)
    assert all(0 <= at < seconds for at in found)
    assert found == a_load(rate=rate).arrivals(seconds, Random(seed))


def test_as_many_requests_leave_as_the_rate_says() -> None:
    assert len(a_load(rate=10.0).arrivals(1000.0, Random(1))) == pytest.approx(10_000, rel=0.05)


def test_prompts_have_their_length_and_no_common_beginning() -> None:
    load, rng = a_load(prompt=512, answer=64), Random(1)
    first, second = (json.loads(load.body("fleet", rng)) for _ in range(2))

    assert len(tokens.encode(first["prompt"])) == 512
    assert (first["model"], first["max_tokens"], first["stream"]) == ("fleet", 64, True)
    assert first["prompt"][:16] != second["prompt"][:16]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_what_is_compared_has_as_many_gpus_and_one_fleet_is_together(load: Load) -> None:
    assert {len(fleet.roles) for fleet in load.fleets} == {4}
    assert TOGETHER in load.fleets
    assert bool(load.rate) != bool(load.clients)


def test_a_load_says_what_it_is() -> None:
    assert a_load(8192, 64, rate=1.5).text == "some: 8,192 + 64, 1.5/s"
    assert a_load(512, 512, clients=3).text == "some: 512 + 512, 3 clients"
