"""Pure: what one can say of a Redis URL before anybody connects."""

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

from extproc.supervise.address import Address

VARIABLE = "KVOY_REDIS"
"""Environment variable that every verb takes in place of ``--redis``: a URL may hold a password, and
everybody may read a command line."""

SCHEMES = ("redis", "rediss", "unix")
EXAMPLES = "write redis://host:6379, rediss://host:6379 or unix:///path/to/socket"
OPTIONS = {"db": "[0-9]+", "username": ".+", "password": ".+"}
"""What may follow a ``?``, and the form of its value."""
TLS_OPTIONS = {
    "ssl_ca_certs": ".+",
    "ssl_cert_reqs": "none|optional|required",
    "ssl_certfile": ".+",
    "ssl_keyfile": ".+",
}
"""What may follow it beside that after ``rediss://``."""


def check(url: str) -> None:
    """Raises ValueError, without naming a password, if nothing can be reached under `url`."""
    fault = _fault(url)
    if fault:
        raise ValueError(f"{shown(url)} {fault}")


def shown(url: str) -> str:
    """`url` fit for a log: without user, password and options."""
    base = re.split("[?#]", url, maxsplit=1)[0]
    before, at, after = base.rpartition("@")
    scheme, mark, _ = base.partition("://")
    if "@" in url[len(base) :]:  # an option with an @, or a password with a ?: who could say which
        return f"{scheme}://…" if mark else "…"
    return f"{scheme}://{after}" if at and "://" in before else after


def address(url: str) -> str:
    """Where a checked `url` connects to: ``unix:PATH`` or ``host:port``."""
    parts = urlsplit(url)
    return (
        f"unix:{parts.path}" if parts.scheme == "unix" else str(Address(parts.hostname or "", _port(parts)))
    )


def _fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"is no Redis URL: {EXAMPLES}"
    if parts.scheme not in SCHEMES:
        return f"is no Redis URL: {EXAMPLES}"
    if parts.scheme == "unix":
        where = None if parts.path.startswith("/") else "names no socket: write unix:///path/to/socket"
        return where or _options_fault(parts)
    return _host_fault(parts) or _options_fault(parts)


def _host_fault(parts: SplitResult) -> str | None:
    example = f"write {parts.scheme}://host:6379"
    try:
        named = (parts.hostname or "").encode("idna") != b""
    except UnicodeError:
        named = False
    if not named:
        return f"names no host: {example}"
    try:
        Address.parse(str(Address(parts.hostname or "", _port(parts))))
    except ValueError:
        return f"has no valid port: {example}"
    if not re.fullmatch("(/[0-9]*)?", parts.path):
        return f"names no database by its number: {example}/0"
    return None


def _options_fault(parts: SplitResult) -> str | None:
    """What the client would not take of what follows the ``?``: it looks only when it connects."""
    known = {**OPTIONS, **(TLS_OPTIONS if parts.scheme == "rediss" else {})}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known or not re.fullmatch(known[name], value, re.DOTALL):
            return f"has an option that is none of {', '.join(known)}, or a value that it cannot have"
    return None


def _port(parts: SplitResult) -> int:
    return 6379 if parts.port is None else parts.port
