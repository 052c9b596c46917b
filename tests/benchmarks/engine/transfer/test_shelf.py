from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine.cache import Lease
from benchmarks.engine.transfer.shelf import Kept, Shelf


def kept(key: str = "a", until: float = 30.0) -> Kept:
    return Kept(key, Lease([], 0, 0), "fingerprint", until)


def test_what_is_kept_is_taken_once() -> None:
    shelf, one = Shelf(), kept()
    assert shelf.put(one) is None
    assert (shelf.take("a"), shelf.take("a")) == (one, None)


def test_what_nobody_takes_expires_when_its_time_is_over() -> None:
    shelf, early, late = Shelf(), kept("a", 30.0), kept("b", 40.0)
    shelf.put(early)
    shelf.put(late)
    assert shelf.next_at == 30.0
    assert shelf.expire(29.9) == []
    assert shelf.expire(30.0) == [early]
    assert (shelf.next_at, len(shelf)) == (40.0, 1)


def test_a_second_prompt_of_the_same_name_takes_the_place_of_the_first() -> None:
    shelf, first, second = Shelf(), kept(), kept()
    shelf.put(first)
    assert shelf.put(second) is first
    assert not shelf.discard(first)
    assert shelf.discard(second)


def test_what_was_refused_is_not_kept_unless_somebody_else_comes_or_time_passes() -> None:
    shelf, one = Shelf(), kept()
    shelf.refuse("a", until=10.0)
    assert shelf.put(one) is one
    assert shelf.put(one) is None
    shelf.refuse("b", until=10.0)
    shelf.take("b")
    assert shelf.put(kept("b")) is None
    shelf.refuse("c", until=10.0)
    shelf.expire(10.0)
    assert shelf.put(kept("c")) is None


_STEPS = st.tuples(st.sampled_from(["put", "take", "discard", "refuse", "expire"]), st.sampled_from("abc"))


@given(st.lists(_STEPS, max_size=40))
def test_nothing_is_lost_and_nothing_is_given_away_twice(steps: list[tuple[str, str]]) -> None:
    shelf, made, out = Shelf(), [], []
    for now, (step, key) in enumerate(steps):
        if step == "put":
            made.append(kept(key, now + 5.0))
            out += filter(None, [shelf.put(made[-1])])
        elif step == "take":
            out += filter(None, [shelf.take(key)])
        elif step == "discard" and made:
            out += [made[-1]] * shelf.discard(made[-1])
        elif step == "refuse":
            shelf.refuse(key, now + 3.0)
        else:
            out += shelf.expire(float(now))
    out += shelf.expire(1e9)
    assert sorted(map(id, out)) == sorted(map(id, made))
    assert len(shelf) == 0
