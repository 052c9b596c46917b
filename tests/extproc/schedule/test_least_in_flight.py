from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from extproc.schedule.least_in_flight import LIST_LENGTH, place
from extproc.state.snapshot import Endpoint


def endpoints(count: int) -> list[Endpoint]:
    return [Endpoint(f"pod/default/{at}", f"10.0.0.{at}:8000") for at in range(count)]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers())
def test_candidates_are_the_least_loaded_in_order(counts: list[int], seed: int) -> None:
    ready = endpoints(len(counts))
    load = {endpoint.pod: count for endpoint, count in zip(ready, counts, strict=True)}

    placement = place(ready, load.__getitem__, Random(seed))

    assert [c.in_flight for c in placement.candidates] == sorted(counts)[:LIST_LENGTH]
    assert all(load[c.endpoint.pod] == c.in_flight for c in placement.candidates)
    assert len({c.endpoint.pod for c in placement.candidates}) == min(len(counts), LIST_LENGTH)
    assert placement.considered == len(counts)


def test_equals_are_drawn_evenly() -> None:
    rng = Random(1)

    drawn = Counter(place(endpoints(4), lambda _: 0, rng).chosen.endpoint.pod for _ in range(4000))

    assert all(abs(count - 1000) < 120 for count in drawn.values())
