"""The endpoints of a ModelServer's cluster (EDS)."""

from functools import lru_cache

from betterproto2 import encode_varint
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint

from controller.xds.address import tcp

_ENDPOINTS_FIELD = b"\x12"
"""How field 2 of a ClusterLoadAssignment begins: `endpoints`, with its length after it."""


def assignment(cluster: str, addresses: tuple[str, ...]) -> bytes:
    """A serialised ClusterLoadAssignment: all of `addresses` (``ip:port``) as equals.

    None at all is an answer too: Envoy then answers 503. Serialising an endpoint takes 0.25 ms, so what did
    not change is not done again: messages one after the other are one message with the lists of all.
    """
    locality = b"".join(map(_alone, addresses))
    head = bytes(endpoint.ClusterLoadAssignment(cluster_name=cluster))
    return head + _ENDPOINTS_FIELD + encode_varint(len(locality)) + locality


@lru_cache(maxsize=65_536)
def _alone(address: str) -> bytes:
    """A locality with this endpoint."""
    only = endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=tcp(address)))
    return bytes(endpoint.LocalityLbEndpoints(lb_endpoints=[only]))
