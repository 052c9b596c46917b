"""Builders for tests of kvoy and of its plugins: small worlds in the words of the domain."""

from collections.abc import Callable, Iterable, Mapping

from extproc.cache.holdings import Holdings
from extproc.calibration import Calibration
from extproc.exchange import (
    Answer,
    BodyMode,
    BodyReceived,
    Decide,
    Decision,
    Event,
    Exchange,
    HeadersReceived,
)
from extproc.fleet import Fleet
from extproc.request import Head
from extproc.reservations import Reservations
from extproc.schedule.placement import Candidate, Evidence, Placement
from extproc.schedule.testing import a_member, a_pool
from extproc.state.engines import Engines
from extproc.state.live import Load
from extproc.state.records import (
    Disaggregation,
    Member,
    ModelRoute,
    ModelServer,
    Pod,
    Record,
    Role,
    Rule,
    StringMatch,
    Target,
)
from extproc.state.snapshot import Endpoint, Snapshot, compile_snapshot


def a_server(
    name: str,
    *,
    model: str | None = None,
    report_usage: bool = True,
    port: int = 8000,
    apart: Disaggregation | None = None,
    client_control: bool = False,
) -> ModelServer:
    """A vLLM ModelServer in namespace ``default``."""
    return ModelServer(
        "default",
        name,
        "vLLM",
        port,
        model=model,
        report_usage=report_usage,
        disaggregation=apart,
        client_control=client_control,
    )


def a_pod(name: str, *servers: str, ip: str = "10.0.0.1", port: int | None = None) -> Pod:
    """A ready pod in namespace ``default``, selected by the named ModelServers."""
    return Pod("default", name, ip, servers, port)


def a_part(
    name: str, server: str, role: Role, *, group: str = "g", ip: str = "10.0.0.1", kv_port: int = 5600
) -> Pod:
    """A ready pod that is the prefill or the decode part of a ModelServer."""
    return Pod("default", name, ip, (server,), members={server: Member(role, group, kv_port)})


def a_rule(
    *targets: str | tuple[str, int],
    name: str = "",
    headers: Mapping[str, StringMatch] | None = None,
    uri: StringMatch | None = None,
    model: str | None = None,
) -> Rule:
    """A rule to ModelServers, each a name or (name, weight)."""
    weighed = tuple(Target(t) if isinstance(t, str) else Target(*t) for t in targets)
    return Rule(weighed, name=name, headers=dict(headers or {}), uri=uri, model=model)


def a_route(
    name: str, *rules: Rule, model: str = "", adapters: Iterable[str] = (), created: float = 0.0
) -> ModelRoute:
    """A ModelRoute in namespace ``default``."""
    return ModelRoute("default", name, rules, model=model, adapters=tuple(adapters), created=created)


def a_snapshot(*records: Record) -> Snapshot:
    """Generation 1 of these records."""
    return compile_snapshot("epoch", 1, records)


def a_fleet(clock: Callable[[], float]) -> Fleet:
    """What a worker knows before it has heard or done anything."""
    return Fleet(Reservations(clock), Engines(clock), Holdings(), Calibration(), lambda: b"secret")


def a_placement(*addresses: str, rank: int | None = None) -> Placement:
    """A placement on the first address, with the others for retries."""
    endpoints = [Endpoint.of(f"pod/default/{at}", address, rank) for at, address in enumerate(addresses)]
    candidates = tuple(Candidate(endpoint, Load(0, 0), 1.0, None) for endpoint in endpoints)
    pool = a_pool(*(a_member() for _ in addresses))
    return Placement(candidates, len(addresses), Evidence(pool, [1.0] * len(addresses), (), (), 0))


def a_head(path: str = "/v1/chat/completions", method: str = "POST", **headers: str) -> Head:
    """Request headers; ``user_type="premium"`` becomes ``user-type: premium``."""
    return Head(method, path, {name.replace("_", "-"): value for name, value in headers.items()}, "request-1")


def play(
    decision: Decision,
    head: Head,
    *chunks: bytes,
    mode: BodyMode = BodyMode.BUFFERED,
    body_limit: int = 2**20,
    ending: tuple[Event, ...] | None = None,
) -> tuple[list[Decide], list[Answer]]:
    """Run a whole exchange: what it asked to decide, and every answer it gave.

    The body arrives as `chunks`, the last one marked last; `ending` replaces that by other events.
    """
    events: list[Event] = [HeadersReceived(head, last=not chunks and ending is None, mode=mode)]
    events += [
        BodyReceived(chunk, last=at == len(chunks) and ending is None) for at, chunk in enumerate(chunks, 1)
    ]
    exchange = Exchange(body_limit)
    asked: list[Decide] = []
    answers: list[Answer] = []
    for event in (*events, *(ending or ())):
        step = exchange.receive(event)
        if isinstance(step, Decide):
            asked.append(step)
            answers += exchange.decided(decision)
        elif step is not None:
            answers.append(step)
    return asked, answers
