from hypothesis import given
from hypothesis import strategies as st

from extproc.schedule.neutral import filled


@given(st.lists(st.floats(0, 1) | st.none(), max_size=20))
def test_the_unknown_lies_within_the_known(values):
    known = [value for value in values if value is not None] or [0.5]

    found = filled(values, 0.5)

    assert len(found) == len(values)
    for value, given_ in zip(found, values, strict=True):
        assert value == given_ if given_ is not None else min(known) <= value + 1e-9 <= max(known) + 2e-9


def test_the_unknown_is_the_mean_of_the_known():
    assert filled([0.0, None, 1.0], 7) == [0.0, 0.5, 1.0]
    assert filled([None, None], 7) == [7, 7]
