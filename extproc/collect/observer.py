"""Pure: what is known of one pod, from look to look, and the statements about its engines."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from extproc.collect.latency import Latency
from extproc.collect.metrics import Exposition, Observation, Tally, aggregated
from extproc.collect.scrape import Sight
from extproc.collect.sites import Site
from extproc.state.live import Engine, life
from extproc.state.records import label
from extproc.state.snapshot import Endpoint

log = logging.getLogger("kvoy.collector")

_LONGEST_REASON = 300
"""Characters of why a look failed: it may quote what the pod answered, and everybody is told."""


@dataclass(slots=True)
class _Latencies:
    ttft: Latency = field(default_factory=Latency)
    tpot: Latency = field(default_factory=Latency)


class Observer:
    """One pod over the time that it is ours."""

    def __init__(
        self,
        site: Site,
        followed: Callable[[str], bool],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`followed` tells of an endpoint key whether its KV events arrive.

        `clock` gives monotonic seconds, `wall` seconds since 1970.
        """
        self.site = site
        self.failing: str | None = None
        """Why the latest look failed."""
        self._followed = followed
        self._clock = clock
        self._wall = wall
        self._sight: Sight | None = None
        self._at = 0.0
        self._started: float | None = None
        self._served: Tally | None = None
        self._latencies = {endpoint.key: _Latencies() for endpoint in site.endpoints}
        self._told_of_ranks = False

    def saw(self, sight: Sight) -> None:
        """A look succeeded."""
        if self.failing is not None:
            log.info("%s is observed again", label(self.site.pod))
        self.failing = None
        self._sight, self._at = sight, self._clock()
        self._live(sight.exposition)
        for endpoint in self.site.endpoints:
            observation = _of(endpoint, sight.exposition)
            if observation is not None:
                latencies = self._latencies[endpoint.key]
                latencies.ttft.observe(observation.ttft, self._at)
                latencies.tpot.observe(observation.tpot, self._at)
        self._tell_of_ranks(sight.exposition)

    def failed(self, why: str) -> None:
        """A look failed; what was seen before grows old."""
        why = why[:_LONGEST_REASON]
        if self.failing is None:
            log.warning("%s can not be observed: %s", label(self.site.pod), why)
        self.failing = why

    def lives(self) -> dict[str, int]:
        """Endpoint key to the life that its engine is in; without those that were never seen."""
        if self._sight is None:
            return {}
        seen = (e for e in self.site.endpoints if _of(e, self._sight.exposition) is not None)
        return {e.key: life(e.key, e.address, self._started) for e in seen}

    def lives_with_one_cache(self) -> dict[str, int]:
        """As `lives`, without endpoints of several ranks: nobody knows whose cache a request meets there."""
        several = self._sight is not None and len(self._sight.exposition.ranks) > 1
        ranked = {endpoint.key for endpoint in self.site.endpoints if endpoint.rank is not None}
        return {key: one for key, one in self.lives().items() if key in ranked or not several}

    def capacity_tokens(self, endpoint: Endpoint) -> int | None:
        """Tokens that the engine's KV cache holds, as it said last."""
        observation = self._sight and _of(endpoint, self._sight.exposition)
        return observation.capacity_tokens if observation else None

    def statements(self) -> list[Engine]:
        """One statement per endpoint, as of now."""
        return [self._statement(endpoint) for endpoint in self.site.endpoints]

    def _live(self, exposition: Exposition) -> None:
        """Engines with several server processes do not tell when they started: then shrinking counts do."""
        served = aggregated(exposition.ranks.values()).ttft
        restarted = served is not None and self._served is not None and served.events < self._served.events
        self._served = served
        started = exposition.started
        if started is None:
            started = self._wall() if restarted else self._started
        if started != self._started:
            self._latencies = {endpoint.key: _Latencies() for endpoint in self.site.endpoints}
        self._started = started

    def _statement(self, endpoint: Endpoint) -> Engine:
        if self._sight is None:
            return Engine(endpoint.key, endpoint.address, 0.0, failing=self.failing or "not observed yet")
        now = self._clock()
        observation = _of(endpoint, self._sight.exposition)
        latencies = self._latencies[endpoint.key]
        absent = None if observation else f"/metrics has nothing of data-parallel rank {endpoint.rank}"
        observation = observation or Observation()
        return Engine(
            endpoint=endpoint.key,
            address=endpoint.address,
            age_s=now - self._at,
            started=self._started,
            failing=self.failing or absent,
            asleep=observation.asleep or self._sight.paused,
            running=observation.running,
            waiting=observation.waiting,
            kv_usage=observation.kv_usage,
            ttft_s=latencies.ttft.mean(now),
            tpot_s=latencies.tpot.mean(now),
            adapters=self._sight.adapters,
            block_size=observation.block_size,
            capacity_tokens=observation.capacity_tokens,
            kv_events=self._followed(endpoint.key),
        )

    def _tell_of_ranks(self, exposition: Exposition) -> None:
        told, ranks = self._told_of_ranks, len(exposition.ranks)
        if ranks > 1 and not told and any(endpoint.rank is None for endpoint in self.site.endpoints):
            log.warning(
                "%s has %d data-parallel ranks, which count as one engine; with the annotation "
                "kvoy.io/data-parallel-size: '%d' on ModelServer %s each would be chosen for itself",
                *(label(self.site.pod), ranks, ranks, label(self.site.server.key)),
            )
            self._told_of_ranks = True


def _of(endpoint: Endpoint, exposition: Exposition) -> Observation | None:
    if endpoint.rank is None:
        return aggregated(exposition.ranks.values())
    return exposition.ranks.get(endpoint.rank)
