"""The route table: the cluster that a worker chose, and nowhere before it has."""

from datetime import timedelta

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from controller.xds.plane import NOWHERE_CLUSTER, ROUTE_TABLE, UNDECIDED_ROUTE, DataPlane
from extproc.state import envoy
from extproc.state.records import ConnectorName, Disaggregation, ModelServer

NOT_BEGUN = "connect-failure,refused-stream"
"""The endpoint has not seen the request."""
RETRY_ON = f"{NOT_BEGUN},reset,gateway-error"
"""What is tried on the next endpoint. All of it happens before the first byte of an answer has gone out."""
TRANSFER_FAILED = 500
"""What a decode engine (vLLM) answers when it did not get a KV cache; without a transfer it can do better."""

PAIRED: frozenset[ConnectorName] = frozenset(("sglang",))
"""Connectors whose decode engine can do nothing without the prefill engine that began with it."""

MAX_DURATION = timedelta(seconds=envoy.MAX_REQUEST_S)

SHORTEST_PAUSE = timedelta(milliseconds=1)
"""Envoy takes no shorter interval between retries."""


def route_table(servers: tuple[ModelServer, ...], plane: DataPlane) -> route.RouteConfiguration:
    """One route per ModelServer, and last the one for requests that no worker has decided.

    The headers by which a worker steers Envoy do not reach the engine, and what only kvoy may tell a client
    does not come from one. Envoy removes headers before it adds any.
    """
    undecided = route.Route(
        name=UNDECIDED_ROUTE,
        match=route.RouteMatch(prefix="/"),
        route=route.RouteAction(cluster=NOWHERE_CLUSTER),
    )
    return route.RouteConfiguration(
        name=ROUTE_TABLE,
        virtual_hosts=[
            route.VirtualHost(
                name="all",
                domains=["*"],
                request_body_buffer_limit=plane.body_limit_bytes,
                request_headers_to_remove=[envoy.CLUSTER_HEADER, envoy.DESTINATION, envoy.WATCH_HEADER],
                response_headers_to_remove=[envoy.DECISION_HEADER, envoy.CLIENT_REQUEST_ID_HEADER],
                response_headers_to_add=[decision_header()] if plane.decision_header else [],
                routes=[*(server_route(server) for server in servers), undecided],
            )
        ],
    )


def decision_header() -> core.HeaderValueOption:
    """Tells the client what the worker said of its decision; an answer that none decided is without it."""
    told = f"%DYNAMIC_METADATA({envoy.KVOY_NAMESPACE}:{envoy.DECISION_KEY})%"
    return core.HeaderValueOption(header=core.HeaderValue(key=envoy.DECISION_HEADER, value=told))


def server_route(server: ModelServer) -> route.Route:
    """Requests that a worker sent to this ModelServer."""
    cluster = server.cluster
    chosen = route.HeaderMatcher(name=envoy.CLUSTER_HEADER, string_match=matcher.StringMatcher(exact=cluster))
    return route.Route(
        name=cluster,
        match=route.RouteMatch(prefix="/", headers=[chosen]),
        route=route.RouteAction(
            cluster=cluster,
            timeout=timedelta(0),
            max_stream_duration=route.RouteActionMaxStreamDuration(max_stream_duration=MAX_DURATION),
            retry_policy=_retry_policy(server),
        ),
    )


def _retry_policy(server: ModelServer) -> route.RetryPolicy:
    """The timeout bounds each attempt up to the response headers; a stream that has begun is never cut."""
    pause = max(timedelta(seconds=server.retry.interval_s), SHORTEST_PAUSE)
    return route.RetryPolicy(
        retry_on=_retry_on(server.disaggregation),
        retriable_status_codes=[] if server.disaggregation is None else [TRANSFER_FAILED],
        num_retries=server.retry.attempts,
        per_try_timeout=None if server.timeout_s is None else timedelta(seconds=server.timeout_s),
        retry_back_off=route.RetryPolicyRetryBackOff(base_interval=pause),
    )


def _retry_on(apart: Disaggregation | None) -> str:
    if apart is None:
        return RETRY_ON
    return NOT_BEGUN if apart.connector in PAIRED else f"{RETRY_ON},retriable-status-codes"
