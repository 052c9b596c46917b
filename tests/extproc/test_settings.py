from dataclasses import fields

from extproc.__main__ import main
from extproc.settings import Settings


def test_every_knob_is_an_option_with_help_and_the_same_default() -> None:
    options = {option.name: option for option in main.params}

    assert options.keys() == {field.name for field in fields(Settings)}
    for field in fields(Settings):
        option = options[field.name]
        assert getattr(option, "help", None), f"--{field.name} explains itself"
        if isinstance(field.default, int | float):
            assert option.default == field.default
