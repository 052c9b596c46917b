"""The ext_proc workers as children: ``python -m extproc`` once per worker."""

from collections.abc import Sequence
from pathlib import Path

from extproc.supervise.plan import Child, Probe
from extproc.supervise.tether import python

LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel's limit is 108, and gRPC adds to the name while it binds."""


def worker_name(at: int) -> str:
    """What Envoy's access log and the controller call worker `at`."""
    return f"extproc-{at}"


def worker_socket(directory: Path, at: int) -> str:
    """The Unix socket of worker `at`; raises ValueError if the path is too long for a socket."""
    path = str(directory / f"{worker_name(at)}.sock")
    if len(path.encode()) > LONGEST_SOCKET_PATH:
        raise ValueError(f"{path} is longer than the {LONGEST_SOCKET_PATH} bytes that a Unix socket may have")
    return path


def workers(
    directory: Path,
    admin: Sequence[str],
    *,
    redis_url: str,
    group: str,
    needs: tuple[str, ...] = (),
    hint: str,
) -> tuple[Child, ...]:
    """One worker per address (``host:port``) of `admin`; raises ValueError as `worker_socket` does."""
    return tuple(
        Child(
            name=worker_name(at),
            argv=python(
                *("-m", "extproc", "--name", worker_name(at), "--socket", worker_socket(directory, at)),
                *("--redis", redis_url, "--group", group, "--admin", address),
            ),
            ready=(Probe(address, "/readyz"), Probe(f"unix:{worker_socket(directory, at)}")),
            needs=needs,
            hint=hint,
        )
        for at, address in enumerate(admin)
    )
