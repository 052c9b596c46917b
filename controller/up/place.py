"""The run directory of one `kvoy up`: private, short, gone afterwards."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LONGEST_PARENT = 60
"""Bytes of the temporary directory's path above which /tmp is used: socket paths have a limit."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the processes find each other."""

    root: Path

    @classmethod
    def pick(cls) -> "Place":
        """A new name under the temporary directory; nothing is created."""
        parent = tempfile.gettempdir()
        short = parent if len(parent.encode()) <= LONGEST_PARENT else "/tmp"
        return cls(Path(short) / f"kvoy-{secrets.token_hex(4)}")

    @property
    def valkey_socket(self) -> Path:
        return self.root / "valkey.sock"

    @property
    def xds_socket(self) -> Path:
        return self.root / "xds.sock"

    @property
    def envoy_admin_socket(self) -> Path:
        return self.root / "envoy.sock"

    @property
    def bootstrap(self) -> Path:
        """Envoy's bootstrap, as JSON."""
        return self.root / "envoy.json"

    @contextmanager
    def made(self) -> Iterator[None]:
        """The directory, for this user only, as long as the context lasts."""
        self.root.mkdir(mode=0o700)
        try:
            yield
        finally:
            shutil.rmtree(self.root, ignore_errors=True)
