"""Which engine a feed follows."""

from dataclasses import dataclass, field
from typing import Literal

from extproc.state import records


@dataclass(frozen=True, slots=True)
class Target:
    """One life of one engine, or of one data-parallel rank of it."""

    endpoint_key: str
    """For people: logs and errors name the engine by it."""
    life: int
    """What the published frames are about (`extproc.state.live.life`)."""
    pod_ip: str
    """Stands for the host ``*`` in the addresses that the engine tells; IPv6 without brackets."""
    http_base_url: str
    """Where the engine is asked for its event sources: ``http://10.0.0.7:8000``, without a path."""
    rank: int
    """Data-parallel rank, from 0; 0 where there is only one."""
    engine: Literal["vLLM", "SGLang"]
    configured: records.KvEvents | Literal["off"] | None
    """Used where the engine tells no source; ``"off"`` asks for no feed at all."""
    secret: bytes = field(repr=False)
    """Of the deployment: seeds the chains, so that hashes mean nothing outside it."""
