import click
import pytest

from extproc.supervise import blaming


@pytest.mark.parametrize("error", [ValueError("it is too long"), PermissionError("it is too long")])
def test_an_error_is_told_with_its_option(error):
    with pytest.raises(click.BadParameter) as said, blaming("--socket"):
        raise error

    assert said.value.format_message() == "Invalid value for '--socket': it is too long"
    assert said.value.exit_code == 2


def test_a_defect_is_no_bad_value():
    with pytest.raises(KeyError), blaming("--socket"):
        raise KeyError
