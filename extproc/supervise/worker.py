"""The ext_proc workers as children: ``python -m extproc`` once per worker."""

from collections.abc import Sequence
from pathlib import Path

from extproc.supervise import redis_url
from extproc.supervise.plan import Child, Probe
from extproc.supervise.socket_path import socket_path
from extproc.supervise.tether import python


def worker_name(at: int) -> str:
    """What Envoy's access log and the controller call worker `at`."""
    return f"extproc-{at}"


def worker_socket(directory: Path, at: int) -> str:
    """The Unix socket of worker `at`; raises ValueError as `socket_path` does."""
    return socket_path(directory / f"{worker_name(at)}.sock")


def workers(
    directory: Path,
    admin: Sequence[str],
    *,
    redis: str,
    group: str,
    needs: tuple[str, ...] = (),
    hint: str,
    tokenizers: Path | None = None,
) -> tuple[Child, ...]:
    """One worker per address (``host:port``) of `admin`; raises ValueError as `worker_socket` does."""
    return tuple(
        Child(
            name=worker_name(at),
            argv=python(
                *("-m", "extproc", "--name", worker_name(at), "--socket", worker_socket(directory, at)),
                *("--group", group, "--admin", address),
                *(() if tokenizers is None else ("--tokenizers", str(tokenizers))),
            ),
            env=((redis_url.VARIABLE, redis),),
            ready=(Probe(address, "/readyz"), Probe(f"unix:{worker_socket(directory, at)}")),
            needs=needs,
            hint=hint,
        )
        for at, address in enumerate(admin)
    )
