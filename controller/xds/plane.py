"""The data plane's own facts, which no record holds, and the names of its parts in Envoy."""

from dataclasses import dataclass

LISTENER = "kvoy"
ROUTE_TABLE = "kvoy"
WORKERS_CLUSTER = "kvoy-extproc"
"""All ext_proc workers: who decides a request is whoever is least busy."""
SECOND_CHANCE_CLUSTER = "kvoy-second-chance"
THIRD_CHANCE_CLUSTER = "kvoy-third-chance"
"""Half of the workers each: whichever worker fails, one of the two is without it."""
UNDECIDED_ROUTE = "undecided"
NOWHERE_CLUSTER = "kvoy-nowhere"
"""A cluster without endpoints: where a request is routed before a worker has decided."""


@dataclass(frozen=True, slots=True)
class DataPlane:
    """Where Envoy listens, and its ext_proc workers."""

    listen: str
    """``ip:port``; port 0 takes a free one."""
    workers: tuple[tuple[str, str], ...]
    """Per worker its name (``extproc-0``) and the path of its Unix socket."""
    body_limit_bytes: int = 16 * 2**20
    """Largest request body; a larger one is answered with 413."""
    decision_header: bool = False
    """Whether each answer tells its client in DECISION_HEADER why it came from that pod."""


def worker_cluster_name(worker: str) -> str:
    """The cluster of one worker alone: where its access-log entries go. No other begins like it."""
    return f"kvoy-worker/{worker}"
