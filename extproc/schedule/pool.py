"""The candidates of one decision: what is known of each, column by column.

Every list has one value per endpoint, in the order of `Pool.endpoints`. A plugin reads columns and never
changes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from extproc.state.live import Engine, Load
from extproc.state.records import Role
from extproc.state.snapshot import Endpoint


class Cached(Protocol):
    """How much of the prompt each endpoint has in its cache; looked up when first asked for."""

    def approximate(self, endpoints: Sequence[Endpoint]) -> list[int]:
        """Tokens per endpoint as our own placements tell."""

    def exact(self, endpoints: Sequence[Endpoint]) -> list[int] | None:
        """Tokens per endpoint as the engines' KV events tell; None where that cannot be said."""


class _Nothing:
    """Stands in for the index in a pool that is kept as evidence: it is not looked up any more."""

    def approximate(self, endpoints: Sequence[Endpoint]) -> list[int]:
        return [0] * len(endpoints)

    def exact(self, endpoints: Sequence[Endpoint]) -> list[int] | None:
        return None


_NOTHING = _Nothing()


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the choice of an endpoint may depend on, of the request itself."""

    tokens: int
    """Length: counted where the token ids are known, else estimated from the bytes."""
    adapter: str | None = None
    """LoRA adapter that is asked for."""
    kind: int = 0
    """Equal for prompts that begin alike, 0 or more: all else equal, they go to the same endpoint."""


@dataclass(slots=True)
class Pool:
    """The endpoints that may be chosen."""

    prompt: Prompt
    endpoints: Sequence[Endpoint]
    loads: list[Load]
    """Requests in flight and prompt tokens still to be computed: ours as of now, the other workers' as of a
    few milliseconds ago."""
    engines: Sequence[Engine | None]
    """What the collector saw; None where nothing is known, or it is too old to steer by."""
    cached_by: Cached
    observed: Sequence[float | None] = ()
    """When each of `engines` was observed, in seconds of the clock of `now`; empty where nobody kept it."""
    now: float = 0.0
    """When the decision is made."""
    notes: tuple[str, ...] = ()
    """What a reader of the explanation should know, such as why exact knowledge is missing."""
    role: Role | None = None
    """What the endpoints would do of the request; None: all of it."""
    _cached: dict[str, list[int] | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.endpoints)

    @property
    def approximate(self) -> list[int]:
        """Prompt tokens that each endpoint has cached, as our own placements tell; at most the prompt's."""
        found = self._cached.get("approximate")
        if found is None:
            found = self._bounded(self.cached_by.approximate(self.endpoints))
            self._cached["approximate"] = found
        return found

    @property
    def exact(self) -> list[int] | None:
        """As `approximate`, as the engines tell; None where that is not known."""
        if "exact" not in self._cached:
            found = self.cached_by.exact(self.endpoints)
            self._cached["exact"] = None if found is None else self._bounded(found)
        return self._cached["exact"]

    @property
    def cached(self) -> list[int]:
        """The best that is known: exact, or else approximate."""
        exact = self.exact
        return self.approximate if exact is None else exact

    @property
    def looked_up(self) -> tuple[str, list[int]] | None:
        """The best column that some plugin asked for, and its name; None where none did."""
        for name in ("exact", "approximate"):
            column = self._cached.get(name)
            if column is not None:
                return name, column
        return None

    def age_s(self, at: int) -> float | None:
        """How old the figures of an engine were, in seconds; None where that is not known."""
        observed = self.observed[at] if self.observed else None
        return None if observed is None else max(0.0, self.now - observed)

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
            [self.observed[at] for at in positions] if self.observed else (),
            self.now,
            self.notes,
            self.role,
            cached,
        )

    def settled(self) -> "Pool":
        """The pool as evidence: what was looked up stays, the index and the prompt's hashes are let go."""
        return Pool(
            self.prompt,
            self.endpoints,
            self.loads,
            self.engines,
            _NOTHING,
            self.observed,
            self.now,
            self.notes,
            self.role,
            self._cached,
        )

    def _bounded(self, column: list[int]) -> list[int]:
        """An estimated prompt may be shorter than what is known to be cached of it."""
        most = self.prompt.tokens
        return [min(tokens, most) for tokens in column] if column and max(column) > most else column
