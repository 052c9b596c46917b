import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.manifests.duration import LONGEST_S, faults, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10s", 10.0),
        ("1m30s", 90.0),
        ("100ms", 0.1),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("2500us", 0.0025),
        ("2500µs", 0.0025),
        ("2000000ns", 0.002),
        ("0", 0.0),
        ("0s", 0.0),
    ],
)
def test_go_durations(text, expected):
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "10", "s", "10 s", "10sec", "-1s", "+1s", "1d", "1s ", "1..5s", "١s", "1e3s"]
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match='write it with units, as in "10s"'):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "reason"), [("8761h", "longer than a year"), ("10us", "shorter than a millisecond")]
)
def test_lengths_that_envoy_could_not_honour_are_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        seconds(text)


@given(st.text(alphabet="0123456789.hmsuµn-+ e", max_size=400))
def test_any_text_gives_a_bounded_length_or_an_error(text):
    try:
        length = seconds(text)
    except ValueError:
        return
    assert length == 0 or 0.001 <= length <= LONGEST_S


@pytest.mark.parametrize("text", ["10ms", "1s", "2m20s", "140s"])
def test_a_length_between_two_others(text):
    assert list(faults(text, "spec.wait", "10ms", "140s")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9ms", '"9ms" is shorter than 10ms'),
        ("0", '"0" is shorter than 10ms'),
        ("140001ms", '"140001ms" is longer than 140s'),
        ("10", '\'10\' is not a duration; write it with units, as in "10s" or "1m30s"'),
    ],
)
def test_a_length_beyond_them_is_a_fault(text, message):
    (fault,) = faults(text, "spec.wait", "10ms", "140s")

    assert (fault.field, fault.message) == ("spec.wait", message)


def test_without_bounds_anything_from_none_to_a_year_will_do():
    assert [list(faults(text, "spec.wait")) for text in ("0", "1ms", "8760h")] == [[], [], []]
