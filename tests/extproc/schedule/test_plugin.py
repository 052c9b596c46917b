import msgspec
import pytest

from extproc.schedule.plugin import Args, without_effect


class Twice(Args, frozen=True):
    how_often: int = 2


def test_arguments_are_spelled_as_in_the_file_and_nothing_else_is_taken():
    assert msgspec.convert({"howOften": 3}, Twice) == Twice(3)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"how_often": 3}, Twice)
    assert list(Twice().faults()) == []


def test_what_has_no_effect_may_only_say_what_is_the_case_anyway():
    assert list(without_effect("size", 5, 5, "there is no size")) == []
    assert list(without_effect("size", 6, 5, "there is no size")) == [
        ("size", "has no effect, as there is no size; remove it (only Kthena's default, 5, is taken)")
    ]
