"""What a worker tells Prometheus.

Counters and histograms are fed as decisions are made and requests end; gauges are read when scraped, so they
cost nothing in between.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.accesslog import Outcome
from extproc.calibration import Claim
from extproc.exchange import Decision, LeaveToWatch, LocalAnswer
from extproc.handoff.handoff import HandOff
from extproc.handoff.ledger import Ending, Result
from extproc.state.live import Load
from extproc.state.records import label

_DECISION_BUCKETS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25)
_REQUEST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The series of one worker, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Histogram(
            "kvoy_decision_seconds",
            "Time from a whole request to its decision.",
            registry=self.registry,
            buckets=_DECISION_BUCKETS,
        )
        self._local = Counter(
            "kvoy_local_answers",
            "Requests answered without an engine, by status.",
            ["status"],
            registry=self.registry,
        )
        self._requests = Counter(
            "kvoy_requests",
            "Requests that ended, by ModelServer, status sent and kind of end.",
            ["server", "status", "end"],
            registry=self.registry,
        )
        self._moved = Counter(
            "kvoy_requests_moved",
            "Requests that another endpoint than the chosen one served, after a retry.",
            ["server"],
            registry=self.registry,
        )
        self._tokens = Counter(
            "kvoy_tokens",
            "Prompt, completion, cached tokens as engines tell; of checked prompts predicted and found.",
            ["server", "kind"],
            registry=self.registry,
        )
        self._first_byte = Histogram(
            "kvoy_time_to_first_byte_seconds",
            "From the request's arrival in Envoy to the engine's first byte, its headers.",
            ["server"],
            registry=self.registry,
            buckets=_REQUEST_BUCKETS,
        )
        self._duration = Histogram(
            "kvoy_request_seconds",
            "From the request's arrival in Envoy to the last byte to the client.",
            ["server"],
            registry=self.registry,
            buckets=_REQUEST_BUCKETS,
        )
        self._prefills = Counter(
            "kvoy_prefills",
            "Tries to have a prompt computed by a prefill endpoint, by ModelServer and what came of it.",
            ["server", "result"],
            registry=self.registry,
        )
        self._prefill_seconds = Histogram(
            "kvoy_prefill_seconds",
            "From asking a prefill endpoint to its answer, where that was good.",
            ["server"],
            registry=self.registry,
            buckets=_REQUEST_BUCKETS,
        )
        self._prefill_tokens = Counter(
            "kvoy_prefill_tokens",
            "Prompt tokens of prefill endpoints' answers, and those of them that were cached there.",
            ["server", "kind"],
            registry=self.registry,
        )
        self._handoffs = Counter(
            "kvoy_handoffs",
            "Requests for two endpoints, by ModelServer and how their hand-off ended.",
            ["server", "ending"],
            registry=self.registry,
        )
        self._expired = Counter(
            "kvoy_reservations_expired",
            "Reservations dropped because Envoy died, or a request outlived its limit.",
            registry=self.registry,
        )

    def decided(self, decision: Decision | LeaveToWatch | HandOff, seconds: float) -> None:
        self._decisions.observe(seconds)
        if isinstance(decision, LocalAnswer):
            self.answered(decision)

    def answered(self, answer: LocalAnswer) -> None:
        """A request ended here."""
        self._local.labels(str(answer.status)).inc()

    def ended(self, outcome: Outcome) -> None:
        entry, server = outcome.entry, label(outcome.reservation.server)
        self._requests.labels(server, str(entry.status), outcome.end.value).inc()
        if outcome.moved:
            self._moved.labels(server).inc()
        self._tokens.labels(server, "prompt").inc(entry.prompt_tokens)
        self._tokens.labels(server, "completion").inc(entry.completion_tokens)
        self._tokens.labels(server, "cached").inc(entry.cached_tokens or 0)
        claim = outcome.reservation.claim
        if isinstance(claim, Claim) and entry.cached_tokens is not None and claim.tested_by(outcome):
            self._tokens.labels(server, "predicted").inc(claim.predicted)
            self._tokens.labels(server, "found").inc(entry.cached_tokens)
        if entry.first_byte_s is not None:
            self._first_byte.labels(server).observe(entry.first_byte_s)
        if entry.duration_s is not None:
            self._duration.labels(server).observe(entry.duration_s)

    def tried(self, handoff: HandOff, result: Result, seconds: float) -> None:
        """One prefill endpoint was asked."""
        server = label(handoff.routing.cluster)
        self._prefills.labels(server, result).inc()
        if result == "computed":
            self._prefill_seconds.labels(server).observe(seconds)

    def computed(self, outcome: Outcome) -> None:
        """A prefill endpoint has computed a prompt."""
        entry, server = outcome.entry, label(outcome.reservation.server)
        self._prefill_tokens.labels(server, "prompt").inc(entry.prompt_tokens)
        self._prefill_tokens.labels(server, "cached").inc(entry.cached_tokens or 0)

    def handed_off(self, handoff: HandOff, ending: Ending) -> None:
        """A hand-off is over."""
        self._handoffs.labels(label(handoff.routing.cluster), ending).inc()

    def expired(self, count: int) -> None:
        self._expired.inc(count)

    def exposition(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)


GAUGES: Mapping[str, str] = {
    "kvoy_ready": "1 once a complete configuration has been seen.",
    "kvoy_state_connected": "1 while the store answers.",
    "kvoy_state_age_seconds": "Seconds since the store last answered.",
    "kvoy_config_generation": "Generation of the configuration in force.",
    "kvoy_state_reloads": "Whole reloads of the state since start.",
    "kvoy_state_gaps": "Gaps seen in the stream of configurations since start.",
    "kvoy_state_lag_seconds": "Age of the newest entry of the last read of the streams.",
    "kvoy_prefills_open": "Prompts that prefill endpoints are computing for this worker.",
    "kvoy_cache_reloads": "Times that all engines' cached blocks were loaded since start.",
    "kvoy_cache_gaps": "Gaps seen in the stream of cached blocks since start.",
    "kvoy_cache_prefix_blocks": "Distinct blocks known from placements.",
    "kvoy_cache_kv_blocks": "Distinct blocks known from KV events.",
}


class Gauges(Collector):
    """Values read at scrape time: the condition of the state, and what is in flight per endpoint."""

    def __init__(
        self, state: Callable[[], Mapping[str, float]], in_flight: Callable[[], Mapping[str, Load]]
    ) -> None:
        self._state = state
        self._in_flight = in_flight

    def collect(self) -> Iterator[Metric]:
        for name, value in self._state().items():
            yield GaugeMetricFamily(name, GAUGES[name], value=value)
        requests = GaugeMetricFamily(
            "kvoy_in_flight",
            "Requests that this worker placed and that have not ended, by endpoint.",
            labels=["endpoint"],
        )
        tokens = GaugeMetricFamily(
            "kvoy_pending_tokens",
            "Prompt tokens of this worker's requests that the engine has yet to compute, by endpoint.",
            labels=["endpoint"],
        )
        for endpoint, load in self._in_flight().items():
            requests.add_metric([label(endpoint)], load.requests)
            tokens.add_metric([label(endpoint)], load.tokens)
        yield requests
        yield tokens
