from extproc.schedule.placement import Candidate, Placement
from extproc.state.snapshot import Endpoint


def placed(*counts: int, considered: int | None = None) -> Placement:
    candidates = tuple(
        Candidate(Endpoint(f"pod/default/{at}", f"10.0.0.{at}:8000"), count)
        for at, count in enumerate(counts)
    )
    return Placement(candidates, considered or len(counts))


def test_destinations_are_listed_best_first() -> None:
    assert placed(0, 1, 4).destinations == "10.0.0.0:8000,10.0.0.1:8000,10.0.0.2:8000"
    assert placed(0, 1).chosen.endpoint.pod == "pod/default/0"


def test_the_reason_says_what_decided() -> None:
    assert placed(3).why() == "the only ready pod"
    assert placed(0, 2, considered=9).why() == "fewest requests in flight (0) of 9 ready pods"
    assert placed(1, 1, 2).why() == "fewest requests in flight (1) of 3 ready pods, drawn among 2 equals"
