"""What a collector tells Prometheus: counters as it works, gauges read when it is scraped itself."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)

GAUGES: Mapping[str, str] = {
    "kvoy_collector_pods": "Pods that this collector owns.",
    "kvoy_collector_pods_failing": "Pods among them that could not be observed when last looked at.",
    "kvoy_collector_members": "Collectors alive, as this one knows.",
    "kvoy_collector_leases_current": "1 while this collector may publish.",
    "kvoy_collector_kv_feeds": "Engines whose KV events are followed.",
    "kvoy_collector_kv_blocks": "Blocks that those engines are known to hold.",
    "kvoy_collector_kv_lag_seconds": "Longest time between an engine's event and its arrival here.",
    "kvoy_collector_prefix_lives": "Engines whose placements are folded into snapshots.",
}
TOTALS: Mapping[str, str] = {
    "kvoy_collector_kv_events": "Event batches applied.",
    "kvoy_collector_kv_changes": "Blocks that those stored or removed.",
    "kvoy_collector_kv_gaps": "How often event batches did not arrive.",
    "kvoy_collector_kv_replays": "How often an engine repeated event batches.",
    "kvoy_collector_kv_clears": "How often everything known of an engine was dropped.",
    "kvoy_collector_entries": "Entries published on the cache stream.",
    "kvoy_collector_dropped_bytes": "Changes never published because the store was away for too long.",
    "kvoy_collector_snapshots": "Cache snapshots written.",
}


class Counters:
    """The series of one collector, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._duration = Histogram(
            "kvoy_collector_scrape_seconds",
            "Time that one look at a pod took, if it succeeded.",
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._failures = Counter(
            "kvoy_collector_scrape_failures", "Looks at a pod that failed.", registry=self.registry
        )

    def looked(self, seconds: float) -> None:
        """A look succeeded."""
        self._duration.observe(seconds)

    def failed(self) -> None:
        """A look failed."""
        self._failures.inc()

    def exposition(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)


class Readings(Collector):
    """The series of `GAUGES` and `TOTALS`, read when scraped."""

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        values = self._read()
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(name, text, value=values[name])
        for name, text in TOTALS.items():
            yield CounterMetricFamily(name, text, value=values[name])
