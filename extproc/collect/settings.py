"""The knobs of a collector."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How a collector runs; every field is an option of ``python -m extproc.collect``."""

    redis_url: str
    group: str
    """Deployment group: which keys in Redis are ours."""
    admin: str
    """``host:port`` of the admin HTTP endpoint."""
    interval_s: float = 1.0
    """Seconds between two looks at a pod."""
