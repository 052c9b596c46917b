"""What is run: an immutable view of the published records, indexed for the path of a request.

Compiled once per publication and shared by every request that it serves: regexes are compiled, routes are
in order of precedence, the endpoints of each ModelServer are listed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import re2

from extproc.state.records import (
    ModelRoute,
    ModelServer,
    Pod,
    Profile,
    Record,
    Rule,
    Scheduler,
    StringMatch,
    Target,
)


@dataclass(frozen=True, slots=True)
class Source:
    """How a decode engine reaches a prefill engine's KV cache."""

    host: str
    """IP; IPv6 without brackets."""
    port: int
    """Of the connector's own protocol: NIXL's side channel, or a bootstrap server."""
    engine_id: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine as one ModelServer reaches it: a pod, or one data-parallel rank of a pod."""

    pod: str
    """Key of the pod."""
    address: str
    """``ip:port``."""
    rank: int | None
    """Data-parallel rank; None where the pod has only one."""
    key: str
    """Names the engine wherever state is kept: the pod's key, and ``#rank`` where there are several."""
    group: str | None = None
    """Where prefill and decode are apart: the group within which endpoints work together."""
    source: Source | None = None
    """Of a prefill endpoint."""

    @classmethod
    def of(
        cls,
        pod: str,
        address: str,
        rank: int | None = None,
        group: str | None = None,
        source: Source | None = None,
    ) -> "Endpoint":
        """The endpoint with its key."""
        return cls(pod, address, rank, pod if rank is None else f"{pod}#{rank}", group, source)


@dataclass(frozen=True, slots=True)
class Condition:
    """A `StringMatch` ready to run."""

    exact: str | None
    prefix: str | None
    regex: object | None

    @classmethod
    def of(cls, match: StringMatch) -> "Condition":
        """Raises ValueError for a regex that is not RE2 syntax; the controller publishes none."""
        return cls(match.exact, match.prefix, None if match.regex is None else _pattern(match.regex))

    def holds(self, value: str) -> bool:
        if self.exact is not None:
            return value == self.exact
        if self.prefix is not None:
            return value.startswith(self.prefix)
        return self.regex is None or self.regex.search(value) is not None  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule whose conditions are compiled and whose targets are resolved."""

    name: str
    headers: tuple[tuple[str, Condition], ...]
    uri: Condition | None
    model: str | None
    targets: tuple[tuple[ModelServer, int], ...]
    """Only targets with a weight above 0 whose ModelServer exists."""

    @classmethod
    def of(cls, rule: Rule, position: int, servers: Mapping[str, ModelServer]) -> "CompiledRule":
        return cls(
            name=rule.name or f"#{position}",
            headers=tuple((name, Condition.of(match)) for name, match in rule.headers.items()),
            uri=None if rule.uri is None else Condition.of(rule.uri),
            model=rule.model,
            targets=tuple(_resolved(rule.targets, servers)),
        )


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A ModelRoute ready to run."""

    namespace: str
    name: str
    rules: tuple[CompiledRule, ...]
    created: float = 0.0

    @property
    def key(self) -> str:
        return f"route/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One generation of the configuration."""

    epoch: str = ""
    generation: int = 0
    """0 before the first publication: nothing may be served from it."""
    by_model: Mapping[str, tuple[CompiledRoute, ...]] = field(default_factory=dict)
    """Model name to its routes, oldest first."""
    by_adapter: Mapping[str, tuple[CompiledRoute, ...]] = field(default_factory=dict)
    """LoRA adapter name to its routes, oldest first."""
    routes: tuple[CompiledRoute, ...] = ()
    """All routes, oldest first: for paths whose body is not parsed."""
    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    """ModelServer key to the ready endpoints that answer its clients, in order of pod name."""
    prefill: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    """ModelServer key to the ready endpoints that only compute prompts, in order of pod name."""
    header_names: frozenset[str] = frozenset()
    """Lower-case names of the headers that some rule looks at."""
    servers: Mapping[str, ModelServer] = field(default_factory=dict)
    """ModelServer key to ModelServer."""
    profile: Profile = field(default_factory=Profile)
    """How endpoints of a ModelServer without a profile of its own are chosen."""

    @property
    def models(self) -> tuple[tuple[str, float], ...]:
        """Every name a client may ask for, with its oldest route's creation time in seconds.

        Models come first, then adapters, each sorted by name.
        """
        adapters = self.by_adapter.keys() - self.by_model.keys()
        named = [(name, self.by_model[name]) for name in sorted(self.by_model)]
        named += [(name, self.by_adapter[name]) for name in sorted(adapters)]
        return tuple((name, routes[0].created) for name, routes in named)


EMPTY = Snapshot()


def compile_snapshot(epoch: str, generation: int, records: Iterable[Record]) -> Snapshot:
    """The view of a whole set of records; raises ValueError as `Condition.of` does."""
    routes: list[ModelRoute] = []
    servers: dict[str, ModelServer] = {}
    pods: list[Pod] = []
    profile = Profile()
    for record in records:
        match record:
            case ModelRoute():
                routes.append(record)
            case ModelServer():
                servers[record.key] = record
            case Pod():
                pods.append(record)
            case Scheduler():
                profile = record.profile
    routes.sort(key=lambda route: (route.created, route.namespace, route.name))
    by_namespace = _by_namespace(servers.values())
    compiled = tuple(_compiled(route, by_namespace) for route in routes)
    return Snapshot(
        epoch=epoch,
        generation=generation,
        by_model=_by_name((r.model, c) for r, c in zip(routes, compiled, strict=True) if r.model),
        by_adapter=_by_name((name, c) for r, c in zip(routes, compiled, strict=True) for name in r.adapters),
        routes=compiled,
        endpoints=_endpoints(servers, pods, answering=True),
        prefill=_endpoints(servers, pods, answering=False),
        header_names=frozenset(name for route in routes for rule in route.rules for name in rule.headers),
        servers=MappingProxyType(servers),
        profile=profile,
    )


def _pattern(regex: str) -> object:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        raise ValueError(f"regex {regex!r} is not RE2 syntax: {error.args[0].decode()}") from None


def _resolved(
    targets: Iterable[Target], servers: Mapping[str, ModelServer]
) -> Iterable[tuple[ModelServer, int]]:
    for target in targets:
        server = servers.get(target.server)
        if server is not None and target.weight > 0:
            yield server, target.weight


def _compiled(route: ModelRoute, servers: Mapping[str, Mapping[str, ModelServer]]) -> CompiledRoute:
    local = servers.get(route.namespace, {})
    rules = tuple(CompiledRule.of(rule, at, local) for at, rule in enumerate(route.rules))
    return CompiledRoute(route.namespace, route.name, rules, route.created)


def _by_namespace(servers: Iterable[ModelServer]) -> Mapping[str, Mapping[str, ModelServer]]:
    grouped: dict[str, dict[str, ModelServer]] = {}
    for server in servers:
        grouped.setdefault(server.namespace, {})[server.name] = server
    return grouped


def _by_name(named: Iterable[tuple[str, CompiledRoute]]) -> Mapping[str, tuple[CompiledRoute, ...]]:
    grouped: dict[str, tuple[CompiledRoute, ...]] = {}
    for name, route in named:
        grouped[name] = (*grouped.get(name, ()), route)
    return MappingProxyType(grouped)


def _endpoints(
    servers: Mapping[str, ModelServer], pods: list[Pod], *, answering: bool
) -> Mapping[str, tuple[Endpoint, ...]]:
    """The endpoints that answer clients, or those that do not."""
    found: dict[str, list[Endpoint]] = {key: [] for key in servers}
    for pod in sorted(pods, key=lambda pod: pod.name):
        for server, address in pod.places(servers):
            if pod.answers(server) is answering:
                ranks = range(server.ranks) if server.ranks > 1 else (None,)
                found[server.key] += (_endpoint(pod, server, address, rank) for rank in ranks)
    return MappingProxyType({key: tuple(endpoints) for key, endpoints in found.items()})


def _endpoint(pod: Pod, server: ModelServer, address: str, rank: int | None) -> Endpoint:
    member = pod.members.get(server.name)
    if member is None:
        return Endpoint.of(pod.key, address, rank)
    source = None
    if member.role == "prefill":
        source = Source(pod.ip, member.kv_port, pod.kv_engine or pod.name)
    return Endpoint.of(pod.key, address, rank, member.group, source)
