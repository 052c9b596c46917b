"""What a plugin is: a class with a name, arguments, and one method; `catalogue` lists them.

A plugin is built once per profile from its arguments, a msgspec Struct whose fields carry the names and
defaults of the configuration file. It holds no state between decisions.
"""

from random import Random
from typing import ClassVar, Protocol

import msgspec

from extproc.schedule.pool import Pool


class NoArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For plugins without arguments."""


class Screen(Protocol):
    """Drops endpoints that must not serve the request."""

    name: ClassVar[str]

    def reasons(self, pool: Pool) -> list[str | None]:
        """Per endpoint, why it is dropped; None keeps it."""


class Scorer(Protocol):
    """Says how well each endpoint suits the request."""

    name: ClassVar[str]

    def scores(self, pool: Pool, rng: Random) -> list[float]:
        """Per endpoint, 0 (worst) to 1 (best). Equal scores where nothing speaks for one of them."""

    def raw(self, pool: Pool) -> list[str]:
        """Per endpoint, the figures behind the score, as a person would say them."""
