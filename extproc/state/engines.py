"""How each engine is, as the collectors state it: the newest statement about each, and how old. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from extproc.state.live import Engine

_JITTER_S = 0.5
"""By so much ages may be wrong: statements travel for different times."""
_FORGET_S = 600.0
"""An engine of which nothing was stated for so long is forgotten."""


class Column(NamedTuple):
    """What is known of some engines at one moment, one value for each."""

    engines: list[Engine | None]
    """None where nothing is known, or only what is too old; without figures where none can be had now."""
    observed: list[float | None]
    """When that was observed, in seconds of the clock of `now`."""
    now: float


class _Known(NamedTuple):
    heard: float
    """When a statement about it last came."""
    observed: float
    """When what is in force was observed."""
    engine: Engine
    blind: Engine | None
    """What is left of it when that is too old: that it can not be observed any more; None if it can, or never
    could be."""


class Engines:
    """The statement in force about each engine, by endpoint key."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._begun: Callable[[str, int | None, int], object] = _unwatched

    def watch(self, begun: Callable[[str, int | None, int], object]) -> None:
        """Call `begun` (endpoint key, former life, life) whenever an engine begins another life.

        The former life is None for an engine first heard of. `begun` must be cheap and never fail; the
        statement of the new life is in force when it is called.
        """
        self._begun = begun

    def observe(self, statement: Engine) -> None:
        """Put a statement in force, unless a newer observation of the same engine is.

        A collector that has not reached an engine since it took it over can not tell its life: all it adds to
        what another one saw at the same address is why the engine fails.
        """
        now = self._clock()
        observed = now - statement.age_s
        former = self._known.get(statement.endpoint)
        if former is not None and _ignorant(statement, former.engine):
            observed = former.observed
            statement = msgspec.structs.replace(former.engine, failing=statement.failing)
        elif former is not None and observed < former.observed - _JITTER_S:
            observed, statement = former.observed, former.engine
        self._known[statement.endpoint] = _Known(now, observed, statement, _blind(statement))
        if former is None or former.engine.life != statement.life:
            self._begun(statement.endpoint, None if former is None else former.engine.life, statement.life)

    def get(self, endpoint: str) -> Engine | None:
        """The statement in force about an engine, however old."""
        known = self._known.get(endpoint)
        return None if known is None else known.engine

    def heard(self, endpoint: str, within_s: float) -> Engine | None:
        """The statement in force, if one about this engine came in the last seconds."""
        known = self._known.get(endpoint)
        if known is None or self._clock() - known.heard > within_s:
            return None
        return known.engine

    def seen(self) -> list[tuple[Engine, float]]:
        """Every statement in force, and the seconds since what it tells was observed."""
        now = self._clock()
        return [(known.engine, now - known.observed) for known in self._known.values()]

    def column(self, endpoints: Sequence[str], max_age_s: float) -> Column:
        """The statements in force about these engines, as far as they were observed at most so long ago."""
        now = self._clock()
        since = now - max_age_s
        engines: list[Engine | None] = []
        observed: list[float | None] = []
        for known in map(self._known.get, endpoints):
            if known is None:
                engines.append(None)
                observed.append(None)
            elif known.observed >= since:
                engines.append(known.engine)
                observed.append(known.observed)
            else:
                blind = known.blind if known.heard >= since else None
                engines.append(blind)
                observed.append(None if blind is None else known.observed)
        return Column(engines, observed, now)

    def forget(self) -> None:
        """Drop engines of which nothing was stated for ten minutes; to be called now and then."""
        until = self._clock() - _FORGET_S
        self._known = {name: known for name, known in self._known.items() if known.heard >= until}


def _ignorant(statement: Engine, former: Engine) -> bool:
    """Whether `statement` tells less than is known: not even when the engine at this address started."""
    same = statement.address == former.address and statement.failing is not None
    return same and statement.started is None and former.started is not None


def _blind(statement: Engine) -> Engine | None:
    """An engine that was seen before and can not be seen now. One that never was may have nothing to tell."""
    if statement.failing is None or statement.started is None:
        return None
    return Engine(
        statement.endpoint, statement.address, 0.0, started=statement.started, failing=statement.failing
    )


def _unwatched(_endpoint: str, _former: int | None, _life: int) -> None:
    """Nobody is told of new lives."""
