"""Pure: what one can say of a Redis URL before anybody connects."""

from urllib.parse import SplitResult, urlsplit

SCHEMES = ("redis", "rediss", "unix")
EXAMPLES = "write redis://host:6379, rediss://host:6379 or unix:///path/to/socket"


def check(url: str) -> None:
    """Raises ValueError, without naming a password, if nothing can be reached under `url`."""
    fault = _fault(url)
    if fault:
        raise ValueError(f"{shown(url)} {fault}")


def shown(url: str) -> str:
    """`url` fit for a log: without user and password."""
    before, at, after = url.rpartition("@")
    return f"{before.partition('://')[0]}://{after}" if at and "://" in before else after


def address(url: str) -> str:
    """Where a checked `url` connects to: ``unix:PATH`` or ``host:port``."""
    parts = urlsplit(url)
    return f"unix:{parts.path}" if parts.scheme == "unix" else f"{parts.hostname}:{_port(parts)}"


def _fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"is no Redis URL: {EXAMPLES}"
    if parts.scheme not in SCHEMES:
        return f"is no Redis URL: {EXAMPLES}"
    if parts.scheme == "unix":
        return None if parts.path.startswith("/") else "names no socket: write unix:///path/to/socket"
    if not parts.hostname:
        return f"names no host: write {parts.scheme}://host:6379"
    try:
        _port(parts)
    except ValueError:
        return f"has no valid port: write {parts.scheme}://host:6379"
    return None


def _port(parts: SplitResult) -> int:
    return 6379 if parts.port is None else parts.port
