"""Metric families in a registry of their own, each declared once, by whoever needs it first."""

from collections.abc import Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"

_Family = TypeVar("_Family", Counter, Gauge, Histogram)


class Families:
    """What one server exposes."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._declared: dict[str, Counter | Gauge | Histogram] = {}

    def render(self) -> bytes:
        """The exposition, as ``/metrics`` answers it."""
        return generate_latest(self._registry)

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """A counter, named without its ``_total``."""
        return self._family(Counter, name, text, labels)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """A value that goes up and down."""
        return self._family(Gauge, name, text, labels)

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), *, buckets: Sequence[float]
    ) -> Histogram:
        """Observations in buckets, given by their upper ends."""
        return self._family(Histogram, name, text, labels, buckets=buckets)

    def _family(
        self, kind: type[_Family], name: str, text: str, labels: Sequence[str], **more: Any
    ) -> _Family:
        found = self._declared.get(name)
        if not isinstance(found, kind):
            found = kind(name, text, labels, registry=self._registry, **more)
            self._declared[name] = found
        return found
