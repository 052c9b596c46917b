"""What a plugin is: a class built from its arguments, with one method that looks at a pool.

A plugin is built once per profile and holds no state between decisions. `catalogue` gives it its name.
"""

from collections.abc import Iterator
from random import Random
from typing import Annotated, ClassVar, Literal, Protocol

import msgspec

from extproc.schedule.pool import Pool

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]

Refusal = Literal["saturated", "no-adapter", "no-pair"]
"""Why nobody is left: too much to do everywhere, or nobody serves the adapter, or no group of endpoints has
both one for prefill and one for decode. No screen says the last."""


class Args(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Arguments of a plugin; a subclass has them as fields, with the file's names and defaults."""

    def faults(self) -> Iterator[tuple[str, str]]:
        """What the types cannot say: the argument's name in the file, and what is wrong with its value."""
        yield from ()


class Screen(Protocol):
    """Drops endpoints that must not serve the request."""

    refusal: ClassVar[Refusal] = "saturated"
    """What is said of a request for which it dropped every endpoint."""

    def reasons(self, pool: Pool) -> list[str | None]:
        """Per endpoint, why it is dropped; None keeps it."""


class Scorer(Protocol):
    """Says how well each endpoint suits the request."""

    wants_exact: bool = False
    """It reads `Pool.exact`: token ids must be known before the decision."""

    def scores(self, pool: Pool, rng: Random) -> list[float]:
        """Per endpoint, 0 (worst) to 1 (best). Equal scores where nothing speaks for one of them."""

    def raw(self, pool: Pool) -> list[str]:
        """Per endpoint, the figures behind the score, as a person would say them."""


def without_effect(argument: str, value: int, default: int, because: str) -> Iterator[tuple[str, str]]:
    """A fault for an argument of Kthena's that does nothing here, unless it has Kthena's default value.

    So files that spell the defaults out are taken, and nobody tunes what cannot be tuned.
    """
    if value != default:
        yield argument, f"has no effect, as {because}; remove it (only Kthena's default, {default}, is taken)"
