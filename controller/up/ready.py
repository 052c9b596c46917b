"""Pure: the one line that `kvoy up` prints when requests can be sent, and how a script reads it."""

import re
from dataclasses import dataclass

_LINE = re.compile(
    r"kvoy is ready: (?P<url>http://\S+) \(\d+ workers?; admin (?P<admin>[^;]+); "
    r"collector (?P<collector>[^;]+); .*\)"
)


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a running kvoy is reached."""

    url: str
    """``http://host:port`` for clients."""
    admin: tuple[str, ...]
    """``http://host:port`` of each worker's admin endpoint."""
    collector: str
    """``http://host:port`` of the collector's."""

    @property
    def line(self) -> str:
        count = len(self.admin)
        workers = "1 worker" if count == 1 else f"{count} workers"
        admin = f"admin {', '.join(self.admin)}; collector {self.collector}"
        return f"kvoy is ready: {self.url} ({workers}; {admin}; Ctrl-C stops it)"

    @classmethod
    def parse(cls, line: str) -> "Ready":
        """The reverse of `line`; raises ValueError for any other text."""
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise ValueError(f"this is no ready line: {line!r}")
        return cls(found["url"], tuple(found["admin"].split(", ")), found["collector"])
