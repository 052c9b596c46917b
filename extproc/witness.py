"""Sees what becomes of each hand-off, and tells who has to know: counts, the journal, and both legs."""

from extproc.explain import Journal
from extproc.handoff.handoff import HandOff
from extproc.handoff.ledger import Ending, Result
from extproc.legs import Legs
from extproc.metrics import Metrics
from extproc.state.snapshot import Endpoint


class Witness:
    """The `handoff.ledger.Watcher` of a worker."""

    def __init__(self, metrics: Metrics, journal: Journal, legs: Legs) -> None:
        self._metrics = metrics
        self._journal = journal
        self._legs = legs

    def tried(self, handoff: HandOff, endpoint: Endpoint, result: Result, seconds: float) -> None:
        """One prefill endpoint was asked, and this came of it."""
        self._metrics.tried(handoff, result, seconds)
        self._journal.tried(handoff.request_id, endpoint, result, seconds)

    def ended(self, handoff: HandOff, ending: Ending) -> None:
        """A hand-off is over."""
        self._metrics.handed_off(handoff, ending)
        self._journal.handed_off(handoff.request_id, ending)
        self._legs.settled(handoff.routing.reservation, receives=ending != "alone")
