"""Decisions of every kind, made by the real scheduler and told by the real journal."""

from random import Random
from typing import Any

from extproc.accesslog import Entry, Outcome
from extproc.calibration import Claim
from extproc.explain import Journal, Refused, Routed
from extproc.rejection import Rejection
from extproc.request import Head
from extproc.reservations import Reservation
from extproc.route import RouteMatch
from extproc.schedule.pair import Pair, Terms, choose
from extproc.schedule.placement import Nobody, Placement
from extproc.schedule.pool import Pool, Prompt
from extproc.schedule.scheduler import Scheduler
from extproc.schedule.testing import a_member
from extproc.schedule.testing import a_pool as a_pool_of
from extproc.state.live import Engine, Load
from extproc.state.records import Plugin, Profile
from extproc.state.snapshot import Endpoint
from extproc.testing import a_pod, a_route, a_rule, a_server, a_snapshot

NOW = 1_790_000_000.125
SERVER = a_server("s")
SNAPSHOT = a_snapshot(
    a_route("r", a_rule("s", name="all"), model="m"),
    SERVER,
    a_pod("a", "s"),
    a_pod("b", "s", ip="10.0.0.2"),
    a_pod("c", "s", ip="10.0.0.3"),
)
MATCH = RouteMatch(SNAPSHOT.routes[0], SNAPSHOT.routes[0].rules[0])
ENDPOINTS = SNAPSHOT.endpoints[SERVER.key]
PROFILE = Profile(
    screens=(Plugin("least-request", {"maxWaitingRequests": 10}),),
    scorers=(Plugin("lmetric", weight=3.0), Plugin("gpu-usage", weight=1.0)),
)


class Known:
    """a has none of the prompt cached, b two thirds."""

    def approximate(self, endpoints: Any) -> list[int]:
        return [1024 if endpoint.pod.endswith("/b") else 0 for endpoint in endpoints]

    def exact(self, endpoints: Any) -> list[int] | None:
        return None


def an_engine(endpoint: Endpoint, **seen: Any) -> Engine:
    return Engine(
        endpoint.key, endpoint.address, 0.2, **{"running": 1, "waiting": 0, "kv_usage": 0.25, **seen}
    )


def a_pool(*engines: Engine | None, endpoints: Any = ENDPOINTS) -> Pool:
    return Pool(
        Prompt(1500),
        endpoints,
        [Load(1, 512)] * len(endpoints),
        engines or [None] * len(endpoints),
        Known(),
        [99.8] * len(endpoints),
        100.0,
    )


def a_placement() -> Placement:
    """b wins by its cache, a comes second, c waits too long and is screened out."""
    a, b, c = ENDPOINTS
    pool = a_pool(an_engine(a), an_engine(b), an_engine(c, waiting=11))
    placement = Scheduler.of(PROFILE).place(pool, Random(1))
    assert isinstance(placement, Placement)
    assert placement.chosen.endpoint is b
    return placement


def a_large_placement(count: int) -> Placement:
    endpoints = [Endpoint.of(f"pod/default/p{at}", f"10.1.0.{at}:8000") for at in range(count)]
    placement = Scheduler.of(PROFILE).place(a_pool(endpoints=endpoints), Random(1))
    assert isinstance(placement, Placement)
    return placement


def a_pair(cached: int = 0) -> Pair:
    """Of each role there are two endpoints; the chosen decode endpoint has so much of the prompt cached."""
    decodes = a_pool_of(
        a_member(group="g", cached=cached), a_member(9, group="g"), prompt=1500, role="decode"
    )
    prefills = a_pool_of(a_member(group="g"), a_member(group="g", waiting=11), prompt=1500, role="prefill")
    pair = choose(Scheduler.of(PROFILE), decodes, prefills, Terms(256, decodes_alone=True), Random(1))
    assert isinstance(pair, Pair)
    return pair


def nobody() -> Nobody:
    """Too much waits everywhere."""
    engines = [an_engine(endpoint, waiting=20) for endpoint in ENDPOINTS]
    found = Scheduler.of(PROFILE).place(a_pool(*engines), Random(1))
    assert isinstance(found, Nobody)
    return found


def a_head(request_id: str = "request-1", path: str = "/v1/chat/completions") -> Head:
    return Head("POST", path, {}, request_id)


def a_client_head() -> Head:
    return Head("POST", "/v1/chat/completions", {}, "request-1", "their-id")


def a_journal(**bounds: int) -> Journal:
    return Journal("extproc-0", lambda: NOW, **bounds)


def routed(placement: Placement | Pair | None = None, reservation: int | None = 7) -> Routed:
    return Routed(MATCH, SERVER, placement or a_placement(), reservation)


def refused() -> Refused:
    return Refused(Rejection("unknown-model", "The model `x` does not exist.", "model", "model_not_found"))


def screened_out() -> Refused:
    return Refused(Rejection("no-ready-pod", "Try again later."), MATCH, SERVER, nobody())


def an_outcome(reservation: int = 7, **entry: Any) -> Outcome:
    """The chosen endpoint served all of it."""
    seen = {
        "instance": "i",
        "reservation": reservation,
        "request_id": "request-1",
        "status": 200,
        "client_gone": False,
        "broken": False,
        "served": "10.0.0.2:8000",
        "first_byte_s": 0.1234,
        "duration_s": 2.5,
        "prompt_tokens": 1490,
        "completion_tokens": 87,
        "cached_tokens": 1008,
        **entry,
    }
    claim = Claim("pod/default/b", 1, "approximate", 1024, 6000, 0, 0, [], 0)
    chosen = Reservation(
        reservation,
        claim.endpoint,
        "10.0.0.2:8000",
        SERVER.key,
        "route/default/r",
        "request-1",
        0.0,
        0,
        claim,
    )
    return Outcome(chosen, Entry(**seen))
