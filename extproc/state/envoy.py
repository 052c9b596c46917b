"""The names that Envoy's configuration, the controller and ext_proc agree on.

Each is spelt here once: the controller writes it into Envoy's configuration, ext_proc sets or reads it.
"""

OWN_HEADER_PREFIX = "x-kvoy-"
"""Every header under this prefix is ours; Envoy strips client copies before anything reads them."""

CLUSTER_HEADER = "x-kvoy-cluster"
"""Request header set by ext_proc: names the Envoy cluster, and so the ModelServer, of a request."""

REASON_HEADER = "x-kvoy-reason"
"""Response header on every error that kvoy or Envoy answers itself: a machine-readable cause."""

DECISION_HEADER = "x-kvoy-decision"
"""Response header with the decision in short, where the controller runs with ``--decision-header``; an
engine's own copy of it never reaches the client."""

DESTINATION = "x-gateway-destination-endpoint"
"""Request header and metadata key of the Endpoint Picker protocol: ``ip:port[,ip:port…]``, best first."""

DESTINATION_SERVED = "x-gateway-destination-endpoint-served"
"""Metadata key under which Envoy reports the endpoint that finally served."""

RANK_HEADER = "x-data-parallel-rank"
"""Request header set by ext_proc: which data-parallel rank of the pod computes, where it has several."""

PREFILLER_HEADER = "x-prefiller-host-port"
"""Request header set by ext_proc for a routing sidecar on the decode pod: ``ip:port`` of the prefill
endpoint."""

CLIENT_REQUEST_ID_HEADER = "x-kvoy-client-request-id"
"""Request header set by Envoy: the ``x-request-id`` that the client sent. Envoy gives each request its own,
which no client can choose."""

WATCH_HEADER = "x-kvoy-watch"
"""Request header set by ext_proc: the decode engine will be asked while the prefill engine computes, so a
worker has to stay until that is done. The ext_proc filter that lets one do so shall decide the request."""

WATCH_KEY = "kvoy-watch"
"""gRPC metadata by which Envoy's ext_proc filters tell workers what they are: WATCH_OFFERED or WATCH_ON.
Other gateways say nothing."""

WATCH_OFFERED = "offered"
"""This filter goes on without its worker; another one, after it, does not."""

WATCH_ON = "on"
"""A request ends with an error if its worker is lost while the stream is open."""

LB_NAMESPACE = "envoy.lb"
"""Dynamic metadata namespace that the override_host load balancer reads."""

KVOY_NAMESPACE = "kvoy"
"""Dynamic metadata namespace of the decision: WORKER_KEY, INSTANCE_KEY, RESERVATION_KEY, DECISION_KEY and,
where a KV cache is transferred, TRANSFER_KEY."""

WORKER_KEY = "worker"
"""Metadata key: the ext_proc worker's name (``extproc-0``), to which Envoy sends the access-log entry."""

INSTANCE_KEY = "instance"
"""Metadata key: one life of a worker; an entry for an earlier life is dropped."""

RESERVATION_KEY = "reservation"
"""Metadata key: the reservation that the access-log entry of this request releases."""

DECISION_KEY = "decision"
"""Metadata key: the decision in short, for access logs: ``%DYNAMIC_METADATA(kvoy:decision)%``."""

TRANSFER_KEY = "transfer"
"""Metadata key: what of the request belongs to a transfer; its fields are those of `exchange.Transferred`."""

USAGE_NAMESPACE = "llm"
"""Dynamic metadata namespace that Envoy fills with token usage taken from the answer."""

PROMPT_TOKENS_KEY = "prompt_tokens"
"""Metadata key: tokens of the prompt."""

COMPLETION_TOKENS_KEY = "completion_tokens"
"""Metadata key: tokens of the answer."""

CACHED_TOKENS_KEY = "cached_tokens"
"""Metadata key: tokens of the prompt that the engine had in its cache."""


LONGEST_DECISION_S = 300.0
"""Longest that a worker may ask Envoy to wait for a decision: while a prompt is computed elsewhere."""

MAX_REQUEST_S = 3600.0
"""Longest life of a request: Envoy ends it then, and workers may forget it a little later."""


def cluster_name(namespace: str, server: str) -> str:
    """Envoy's cluster for a ModelServer."""
    return f"model/{namespace}/{server}"
