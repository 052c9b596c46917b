"""What the user asked `kvoy up` for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked options; ports are chosen."""

    manifests: Path
    """The directory of YAML that the controller follows."""
    listen: str
    """``ip:port`` on which Envoy takes requests."""
    admin: tuple[str, ...]
    """``ip:port`` of each worker's admin endpoint: as many as there are workers."""
    collector: str
    """``ip:port`` of the collector's admin endpoint."""
    group: str = "default"
    """Deployment group: which keys in Redis are ours."""
    redis_url: str | None = None
    """None: a Valkey of our own."""
    decision_header: bool = False
    """Whether each answer tells its client why it came from that pod."""
    tokenizers: Path | None = None
    """Directory with one tokeniser per model; None: engines are asked for token ids where they are needed."""
