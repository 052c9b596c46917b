"""The knobs of one worker."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """How one worker runs; every field is an option of ``python -m extproc``."""

    name: str
    """The worker's name as Envoy's access log knows it: ``extproc-0``."""
    socket: str
    """Unix socket for ext_proc and access logs."""
    redis_url: str
    group: str
    """Deployment group: which keys in Redis are ours."""
    admin: str
    """``host:port`` of the admin HTTP endpoint."""
    body_limit: int = 16 * 2**20
    """Largest request body in full duplex mode, in bytes; Envoy's own limit bounds buffered bodies."""
    drain_s: float = 5.0
    """How long a stopping worker lets decisions in progress finish."""
    tokenizers: Path | None = None
    """Directory with one tokeniser per model; None: engines are asked for token ids where they are needed."""
