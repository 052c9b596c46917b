"""The candidates of one decision: what is known of each, column by column.

Every list has one value per endpoint, in the order of `Pool.endpoints`. A plugin reads columns and never
changes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from extproc.state.live import Engine, Load
from extproc.state.snapshot import Endpoint


class Cached(Protocol):
    """How much of the prompt each endpoint has in its cache; looked up when first asked for."""

    def approximate(self, endpoints: Sequence[Endpoint]) -> list[int]:
        """Tokens per endpoint as our own placements tell."""

    def exact(self, endpoints: Sequence[Endpoint]) -> list[int] | None:
        """Tokens per endpoint as the engines' KV events tell; None where that cannot be said."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the choice of an endpoint may depend on, of the request itself."""

    tokens: int
    """Length: counted where `token_ids` are known, else estimated from the bytes."""
    adapter: str | None = None
    """LoRA adapter that is asked for."""


@dataclass(slots=True)
class Pool:
    """The endpoints that may be chosen."""

    prompt: Prompt
    endpoints: Sequence[Endpoint]
    loads: list[Load]
    """Requests in flight and prompt tokens still to be computed: ours as of now, the other workers' as of a
    few milliseconds ago."""
    engines: list[Engine | None]
    """What the collector saw; None where nothing is known, or it is too old to steer by."""
    cached_by: Cached
    _cached: dict[str, list[int] | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.endpoints)

    @property
    def approximate(self) -> list[int]:
        """Prompt tokens that each endpoint has cached, as our own placements tell."""
        found = self._cached.get("approximate")
        if found is None:
            found = self._cached["approximate"] = self.cached_by.approximate(self.endpoints)
        return found

    @property
    def exact(self) -> list[int] | None:
        """Prompt tokens that each endpoint has cached, as the engines tell; None where that is not known."""
        if "exact" not in self._cached:
            self._cached["exact"] = self.cached_by.exact(self.endpoints)
        return self._cached["exact"]

    @property
    def cached(self) -> list[int]:
        """The best that is known: exact, or else approximate."""
        exact = self.exact
        return self.approximate if exact is None else exact

    def keep(self, positions: Sequence[int]) -> "Pool":
        """The pool of these endpoints alone."""
        cached = {
            name: None if column is None else [column[at] for at in positions]
            for name, column in self._cached.items()
        }
        return Pool(
            self.prompt,
            [self.endpoints[at] for at in positions],
            [self.loads[at] for at in positions],
            [self.engines[at] for at in positions],
            self.cached_by,
            cached,
        )
