"""Which tokenisers there are below a directory."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from extproc.tokens.files import FILES, TOKENIZER, Broken, load
from extproc.tokens.model import Model
from extproc.tokens.question import NotHere

log = logging.getLogger("kvoy.tokens")

LOOK_AGAIN_S = 2.0
"""How long files are taken to be as they were."""


@dataclass(slots=True)
class _Shelf:
    """What is known of one name."""

    lock: threading.Lock
    """Held while the files are looked at, so that they are read once."""
    looked_at: float = float("-inf")
    stamp: tuple[tuple[int, int, int] | None, ...] = ()
    """Which file, of which time and size: as of the last look."""
    model: Model | str = ""
    """Or why there is none."""


class Directory:
    """Models by the name of their directory: read when first asked for, and again when a file changes."""

    def __init__(self, path: Path, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._path = path
        self._clock = clock
        self._now = now
        self._shelves: dict[str, _Shelf] = {}
        self._lock = threading.Lock()

    def model(self, name: str) -> Model:
        """The model of that name; raises `NotHere`. Reads files: not for the event loop."""
        with self._lock:
            shelf = self._shelves.setdefault(name, _Shelf(threading.Lock()))
        with shelf.lock:
            if self._clock() - shelf.looked_at >= LOOK_AGAIN_S:
                self._look(name, shelf)
        if isinstance(shelf.model, Model):
            return shelf.model
        raise NotHere(shelf.model)

    def _look(self, name: str, shelf: _Shelf) -> None:
        shelf.looked_at = self._clock()
        directory = self._path / name
        if ".." in name.split("/") or Path(name).is_absolute() or not (directory / TOKENIZER).exists():
            shelf.stamp, shelf.model = (), f"there is no tokenizer for {name} in {self._path}"
            return
        stamp = tuple(_stamp(directory / file) for file in FILES)
        if stamp == shelf.stamp:
            return
        shelf.stamp = stamp
        try:
            shelf.model = load(directory, self._now)
            log.info("tokenizer %s read from %s", name, directory)
        except Broken as error:
            log.error("tokenizer %s cannot be used: %s", name, error)
            if not isinstance(shelf.model, Model):
                shelf.model = f"the tokenizer is broken: {error}"


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
