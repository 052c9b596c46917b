"""Pure: which pods are worth watching, and how each is reached."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from extproc.state.records import ModelServer
from extproc.state.snapshot import Endpoint, Snapshot


@dataclass(frozen=True, slots=True)
class Site:
    """One pod as a collector reaches it, and the endpoints that it is."""

    pod: str
    """Key of the pod: what collectors share out among them."""
    address: str
    """``ip:port``."""
    server: ModelServer
    """Says how to speak to it; the first by key where several select the pod."""
    endpoints: tuple[Endpoint, ...]
    """Every endpoint at this address, in order of key."""

    @property
    def ip(self) -> str:
        """IPv6 without brackets."""
        return self.address.rpartition(":")[0].strip("[]")


def sites(snapshot: Snapshot) -> dict[str, Site]:
    """Every pod that some route leads to, be it only to compute prompts, by key.

    A pod that ModelServers reach under several ports is watched under the first one's.
    """
    found: dict[str, Site] = {}
    for server in _routed(snapshot):
        for endpoint in (*snapshot.endpoints.get(server.key, ()), *snapshot.prefill.get(server.key, ())):
            site = found.get(endpoint.pod, Site(endpoint.pod, endpoint.address, server, ()))
            found[endpoint.pod] = _with(site, endpoint)
    return found


def _with(site: Site, endpoint: Endpoint) -> Site:
    # Two ModelServers may have different parts for one pod.
    known = any(endpoint.key == one.key for one in site.endpoints)
    if endpoint.address != site.address or known:
        return site
    endpoints = sorted((*site.endpoints, endpoint), key=lambda one: (one.rank or 0, one.key))
    return Site(site.pod, site.address, site.server, tuple(endpoints))


def _routed(snapshot: Snapshot) -> Iterator[ModelServer]:
    rules = (rule for route in snapshot.routes for rule in route.rules)
    servers: Mapping[str, ModelServer] = {server.key: server for rule in rules for server, _ in rule.targets}
    return (servers[key] for key in sorted(servers))
