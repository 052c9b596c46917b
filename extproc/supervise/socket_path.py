"""Paths of Unix sockets."""

from pathlib import Path

LONGEST = 100
"""Bytes; the kernel's limit is 108, and gRPC adds to the name while it binds."""


def socket_path(path: Path) -> str:
    """`path` from the root, which every server and client of ours can use; else raises ValueError."""
    whole = str(path.absolute())
    try:
        length = len(whole.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{whole!r} is not UTF-8, which Envoy wants of a Unix socket") from None
    if length > LONGEST:
        raise ValueError(f"{whole} is longer than the {LONGEST} bytes that a Unix socket may have")
    return whole
