import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.cache.slots import Slots


def test_each_life_has_a_bit_of_its_own():
    slots = Slots()
    bits = [slots.claim(life) for life in (10, 20, 30)]

    assert bits == [1, 2, 4]
    assert [slots.claim(life) for life in (10, 20, 30)] == bits
    assert slots.live == 7
    assert slots.bit(20) == 2
    assert slots.bit(99) == 0


def test_a_released_bit_is_taken_again_once_it_is_clean():
    slots = Slots()
    slots.claim(10), slots.claim(20)
    slots.release(10)

    assert (slots.live, slots.stale, slots.bit(10)) == (2, 1, 0)
    assert slots.claim(30) == 4, "bit 1 may still stand in the index"

    slots.clean(1)
    assert slots.claim(40) == 1
    assert slots.stale == 0
    assert slots.lives(7) == [40, 20, 30]


def test_a_life_without_a_bit_is_released_without_effect():
    slots = Slots()
    slots.claim(10)
    slots.release(99)

    assert (slots.live, slots.stale) == (1, 0)


@pytest.mark.parametrize("count", [1, 64, 300])
@given(picks=st.data())
def test_lives_of_a_mask(count, picks):
    slots = Slots()
    bits = {life: slots.claim(life) for life in range(1000, 1000 + count)}
    chosen = picks.draw(st.sets(st.sampled_from(sorted(bits))))

    assert slots.lives(sum(bits[life] for life in chosen)) == sorted(chosen)


def test_bits_in_use_do_not_grow_with_turnover():
    slots = Slots()
    for life in range(1000):
        slots.claim(life)
        slots.release(life)
        slots.clean(slots.stale)

    assert slots.claim(5000) == 1
