"""Pure: mean latencies between two scrapes, from histograms that only ever grow."""

from extproc.collect.metrics import Tally

STANDS_S = 10.0
"""Seconds without a request after which a latency is forgotten: an engine that got nothing because it was
slow once would otherwise stay without requests for ever."""


class Latency:
    """One latency of one engine."""

    def __init__(self) -> None:
        self._tally: Tally | None = None
        self._mean: float | None = None
        self._at = 0.0

    def observe(self, tally: Tally | None, now: float) -> None:
        """The histogram as scraped at `now`, in monotonic seconds; one that shrank begins anew."""
        before, self._tally = self._tally, tally
        if before is None or tally is None:
            return
        count, seconds = tally.events - before.events, tally.seconds - before.seconds
        if count < 0:
            self._mean = None
        elif count > 0 and seconds >= 0:
            self._mean, self._at = seconds / count, now

    def mean(self, now: float) -> float | None:
        """Seconds, over the last interval with requests; None if that is unknown or long ago."""
        return self._mean if now - self._at <= STANDS_S else None
