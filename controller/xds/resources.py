"""What Envoy shall run, per resource type: the whole configuration, compiled from the records.

`build` is pure and deterministic: equal records give equal bytes, and so equal versions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from controller.xds.clusters import model_cluster, nowhere_cluster
from controller.xds.endpoints import assignment
from controller.xds.listener import public_listener
from controller.xds.plane import LISTENER, ROUTE_TABLE, DataPlane
from controller.xds.routes import route_table
from controller.xds.workers import deciding_clusters, worker_cluster
from extproc.state.records import ModelServer, Pod, Record

CLUSTERS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENERS = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


@dataclass(frozen=True, slots=True)
class Resources:
    """Serialised resources by type URL and name, and a version per type."""

    by_type: Mapping[str, Mapping[str, bytes]]
    versions: Mapping[str, str]
    """Equal if and only if nothing of the type that Envoy must see changed."""

    @classmethod
    def versioned(
        cls,
        *,
        clusters: Mapping[str, bytes],
        endpoints: Mapping[str, bytes],
        listeners: Mapping[str, bytes],
        routes: Mapping[str, bytes],
    ) -> "Resources":
        """A version is a hash of the content. Envoy waits for endpoints again whenever a cluster changes, and
        for routes whenever a listener does; so their versions cover those, and they are sent again.
        """
        return cls(
            by_type={CLUSTERS: clusters, ENDPOINTS: endpoints, LISTENERS: listeners, ROUTES: routes},
            versions={
                CLUSTERS: _digest(clusters),
                ENDPOINTS: _digest(clusters, endpoints),
                LISTENERS: _digest(listeners),
                ROUTES: _digest(listeners, routes),
            },
        )


def build(records: Mapping[str, Record], plane: DataPlane) -> Resources:
    """The configuration that serves `records` (by key) through `plane`.

    Taking a ModelServer away at once can fail the requests that a worker routes by an older state: offer the
    old and the new records together first, and the new ones alone once every worker has them.
    Raises ValueError if `plane.listen` is not an address.
    """
    servers = tuple(sorted((r for r in records.values() if isinstance(r, ModelServer)), key=lambda s: s.key))
    return Resources.versioned(
        clusters={**_plane_clusters(plane), **{server.cluster: _cluster(server) for server in servers}},
        endpoints=_endpoints(servers, records),
        listeners={LISTENER: _listener(plane)},
        routes={ROUTE_TABLE: _routes(servers, plane)},
    )


def _endpoints(servers: tuple[ModelServer, ...], records: Mapping[str, Record]) -> dict[str, bytes]:
    """Prefill pods are none of them: where no listed endpoint is left, Envoy takes any."""
    addresses: dict[str, list[str]] = {server.key: [] for server in servers}
    for pod in records.values():
        if isinstance(pod, Pod):
            for server, address in pod.places(records):
                if pod.answers(server):
                    addresses[server.key].append(address)
    return {
        server.cluster: assignment(server.cluster, tuple(sorted(set(addresses[server.key]))))
        for server in servers
    }


def _digest(*parts: Mapping[str, bytes]) -> str:
    digest = blake2b(digest_size=8)
    for part in parts:
        for name, raw in sorted(part.items()):
            digest.update(b"%d:%s%d:" % (len(name), name.encode(), len(raw)))
            digest.update(raw)
    return digest.hexdigest()


# Serialising is what costs: what did not change since the last build is not done again.


@lru_cache(maxsize=4)
def _plane_clusters(plane: DataPlane) -> Mapping[str, bytes]:
    alone = (worker_cluster(*worker) for worker in plane.workers)
    each = (nowhere_cluster(), *deciding_clusters(plane), *alone)
    return {cluster.name: bytes(cluster) for cluster in each}


@lru_cache(maxsize=4)
def _listener(plane: DataPlane) -> bytes:
    return bytes(public_listener(plane))


@lru_cache(maxsize=4)
def _routes(servers: tuple[ModelServer, ...], plane: DataPlane) -> bytes:
    return bytes(route_table(servers, plane))


@lru_cache(maxsize=1024)
def _cluster(server: ModelServer) -> bytes:
    return bytes(model_cluster(server))
