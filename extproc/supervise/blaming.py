"""Turns what is wrong with the value of an option into an error of the command line."""

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def blaming(option: str) -> Iterator[None]:
    """A ValueError or an OSError inside the block becomes ``Invalid value for 'option': ...``, status 2."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint=f"'{option}'") from None
