"""The endpoints of a ModelServer's cluster (EDS)."""

from envoy_data_plane.envoy.config.endpoint import v3 as endpoint

from controller.xds.address import tcp


def assignment(cluster: str, addresses: tuple[str, ...]) -> endpoint.ClusterLoadAssignment:
    """All of `addresses` (``ip:port``) as equals. None at all is an answer too: Envoy then answers 503."""
    endpoints = [
        endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=tcp(address))) for address in addresses
    ]
    return endpoint.ClusterLoadAssignment(
        cluster_name=cluster, endpoints=[endpoint.LocalityLbEndpoints(lb_endpoints=endpoints)]
    )
