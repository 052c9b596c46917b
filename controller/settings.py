"""The knobs of the controller, and how they are written on the command line."""

import re
from dataclasses import dataclass
from pathlib import Path

from extproc.supervise import socket_path

_SIZE = re.compile(r"([0-9]{1,10})(B|KiB|MiB|GiB)?")
_UNIT = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_LARGEST = 2**32 - 1
"""Envoy's buffer limits are 32 bits wide."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How one controller runs; every field is an option of ``kvoy controller``."""

    manifests: Path
    """Directory of YAML and JSON files."""
    redis_url: str
    group: str
    """Deployment group: which keys in Redis are ours."""
    xds_socket: str
    """Unix socket on which Envoy gets its configuration."""
    listen: str
    """``ip:port`` on which Envoy takes requests."""
    workers: tuple[tuple[str, str], ...]
    """ext_proc workers: name and Unix socket."""
    body_limit_bytes: int
    """Largest request body."""
    decision_header: bool = False
    """Whether each answer tells its client why it came from that pod."""


def size(text: str) -> int:
    """Bytes of ``65536``, ``512KiB``, ``16MiB`` or ``1GiB``; raises ValueError on anything else."""
    written = _SIZE.fullmatch(text)
    found = int(written[1]) * _UNIT[written[2]] if written else 0
    if not 0 < found <= _LARGEST:
        raise ValueError(f"{text!r} is no size from 1 byte to 4 GiB; write it as in 16MiB")
    return found


def socket(text: str) -> str:
    """A path that a Unix socket can have, in a directory that exists; raises ValueError on anything else."""
    path = socket_path(Path(text))
    directory = Path(path).parent
    if not directory.is_dir():
        raise ValueError(f"{directory} is not a directory")
    return path


def workers(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(name, socket) of each ``NAME=SOCKET``; raises ValueError if one is none or a name comes twice."""
    pairs = tuple((name, path) for name, _, path in (text.partition("=") for text in texts))
    for text, (name, path) in zip(texts, pairs, strict=True):
        if not name or not path.startswith("/"):
            raise ValueError(
                f"{text!r} is not NAME=SOCKET with an absolute path, as in extproc-0=/run/kvoy/0.sock"
            )
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("each worker needs a name of its own")
    return tuple((name, socket_path(Path(path))) for name, path in pairs)
