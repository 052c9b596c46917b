"""vLLM's metric families about transfers: NIXL's own, and who waits for a KV cache."""

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from benchmarks.engine.batch import Batch
from benchmarks.engine.families import Families
from benchmarks.engine.settings import EngineSettings

BYTES_PER_TOKEN = 131_072
"""Of a model with 32 layers, 8 KV heads of 128 numbers, 16 bits each."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 5.0)
_BYTES = tuple(2 ** (10 + step) for step in range(1, 25, 2))
_DESCRIPTORS = (10, 20, 30, 50, 75, 100, 200, 400, 1000, 2000, 4000, 10000, 20000, 50000)


@dataclass(frozen=True, slots=True)
class _Nixl:
    seconds: Histogram
    posted: Histogram
    bytes: Histogram
    descriptors: Histogram
    failed: Counter
    expired: Counter


class TransferCounters:
    """Counts transfers; an engine shows those families that its connector and role have."""

    def __init__(self, families: Families, settings: EngineSettings, batch: Batch) -> None:
        self._families = families
        self._labels = {"model_name": settings.model, "engine": "0"}
        self._nixl = self._declare() if settings.connector in ("nixl", "nixl-push") else None
        if settings.connector != "none" and settings.role != "prefill":
            self._stages(batch)

    def transferred(self, seconds: float, tokens: int) -> None:
        """A prompt, or the end of one, has come from another engine."""
        if self._nixl is not None:
            self._nixl.seconds.observe(seconds)
            self._nixl.posted.observe(0)
            self._nixl.bytes.observe(tokens * BYTES_PER_TOKEN)
            self._nixl.descriptors.observe(1)

    def failed(self) -> None:
        """A prompt did not come."""
        if self._nixl is not None:
            self._nixl.failed.inc()

    def expired(self) -> None:
        """Nobody has come for a prompt in time."""
        if self._nixl is not None:
            self._nixl.expired.inc()

    def _declare(self) -> _Nixl:
        self._counter("num_failed_notifications", "Always 0: notifications are not checked.")
        self._counter("num_notifications_after_expiry", "Always 0, likewise.")
        return _Nixl(
            seconds=self._histogram("xfer_time_seconds", "Seconds of a transfer.", _SECONDS),
            posted=self._histogram("post_time_seconds", "Always 0: posting is free.", (0.001, *_SECONDS)),
            bytes=self._histogram("bytes_transferred", "Bytes of a transfer.", _BYTES),
            descriptors=self._histogram("num_descriptors", "Always 1.", _DESCRIPTORS),
            failed=self._counter("num_failed_transfers", "Transfers that failed."),
            expired=self._counter("num_kv_expired_reqs", "Requests that nobody fetched in time."),
        )

    def _stages(self, batch: Batch) -> None:
        name, text = "vllm:num_requests_kv_fetch_by_stage", "Requests whose KV cache comes from elsewhere."
        gauge = self._families.gauge(name, text, [*self._labels, "stage"])
        gauge.labels(**self._labels, stage="waiting_to_start").set_function(lambda: batch.to_fetch)
        gauge.labels(**self._labels, stage="in_progress").set_function(lambda: batch.fetching)
        gauge.labels(**self._labels, stage="completed_waiting").set_function(lambda: batch.fetched)

    def _counter(self, family: str, text: str) -> Counter:
        counter = self._families.counter(f"vllm:nixl_{family}", text, list(self._labels))
        return counter.labels(**self._labels)

    def _histogram(self, family: str, text: str, buckets: Sequence[float]) -> Histogram:
        name = f"vllm:nixl_{family}"
        histogram = self._families.histogram(name, text, list(self._labels), buckets=buckets)
        return histogram.labels(**self._labels)
