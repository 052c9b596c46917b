"""Fewest requests in flight first; equals in random order."""

from collections.abc import Callable, Sequence
from heapq import nsmallest
from random import Random

from extproc.schedule.placement import Candidate, Placement
from extproc.state.snapshot import Endpoint

LIST_LENGTH = 5
"""Endpoints named per request: the choice and up to four to retry on, as Kthena tries."""


def place(endpoints: Sequence[Endpoint], in_flight: Callable[[str], int], rng: Random) -> Placement:
    """Order the endpoints; `in_flight` gives the count of a pod key.

    Ties are drawn, so that workers which see equal counts do not all choose the same pod.
    """
    if len(endpoints) == 1:
        only = endpoints[0]
        return Placement((Candidate(only, in_flight(only.pod)),), 1)
    draw = rng.random
    ranked = nsmallest(LIST_LENGTH, [(in_flight(e.pod), draw(), at) for at, e in enumerate(endpoints)])
    return Placement(tuple(Candidate(endpoints[at], count) for count, _, at in ranked), len(endpoints))
