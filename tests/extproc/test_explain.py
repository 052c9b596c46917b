from extproc.explain import Journal
from extproc.rejection import Rejection
from extproc.request import Head
from extproc.route import RouteMatch
from extproc.schedule.placement import Candidate, Placement
from extproc.testing import a_head, a_pod, a_route, a_rule, a_server, a_snapshot

SNAPSHOT = a_snapshot(
    a_route("r", a_rule("s", name="all"), model="m"),
    a_server("s"),
    a_pod("a", "s"),
    a_pod("b", "s", ip="10.0.0.2"),
)
ENDPOINTS = SNAPSHOT.endpoints["server/default/s"]
PLACEMENT = Placement((Candidate(ENDPOINTS[1], 0), Candidate(ENDPOINTS[0], 3)), 2)


def remember(journal: Journal, request_id: str) -> None:
    head = a_head()
    match = RouteMatch(SNAPSHOT.routes[0], SNAPSHOT.routes[0].rules[0])
    journal.routed(type(head)(head.method, head.path, {}, request_id), match, a_server("s"), PLACEMENT, 4)


def test_a_placement_is_told_with_its_candidates() -> None:
    journal = Journal("extproc-0")
    remember(journal, "x")

    assert journal.explain("x") == {
        "request_id": "x",
        "worker": "extproc-0",
        "path": "/v1/chat/completions",
        "generation": 4,
        "route": "default/r",
        "rule": "all",
        "adapter": False,
        "server": "default/s",
        "pod": "default/b",
        "why": "fewest requests in flight (0) of 2 ready pods",
        "considered": 2,
        "candidates": [
            {"pod": "default/b", "address": "10.0.0.2:8000", "in_flight": 0},
            {"pod": "default/a", "address": "10.0.0.1:8000", "in_flight": 3},
        ],
    }


def test_a_rejection_is_told_with_its_reason() -> None:
    journal = Journal("extproc-0")
    journal.rejected(a_head(), Rejection("unknown-model", "no such model"), 4)

    told = journal.explain("request-1")

    assert told is not None
    assert (told["status"], told["reason"], told["why"]) == (404, "unknown-model", "no such model")


def test_a_client_does_not_choose_how_much_is_remembered() -> None:
    journal = Journal("extproc-0")
    head = Head("POST", "/" + "x" * 60_000, {}, "id" * 1000)
    journal.rejected(head, Rejection("no-matching-rule", "none"), 1)

    told = journal.explain(("id" * 1000)[:256])

    assert told is not None
    assert len(told["path"]) == 256


def test_only_the_last_decisions_are_kept() -> None:
    journal = Journal("extproc-0", capacity=3)
    for at in range(5):
        remember(journal, str(at))

    assert [journal.explain(str(at)) is not None for at in range(5)] == [False, False, True, True, True]
