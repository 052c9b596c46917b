"""A directory of manifests: what its files hold now, and a wake-up whenever that changes."""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from watchfiles import awatch
from watchfiles.main import FileChange

from controller.manifests.problem import Problem
from controller.manifests.text import MAX_BYTES

log = logging.getLogger("kvoy.controller")

_SUFFIXES = (".yaml", ".yml", ".json")

_SETTLE_MS = 50
"""An edit is over once nothing has changed for this long, so that an edit of several files is one."""

_LONGEST_EDIT_MS = 500
"""A directory that never settles is read this often."""

_LOOK_MS = 500
"""How often the directory is looked at without a notice: what inotify cannot see (network file systems, a
replaced directory) is followed all the same."""

_ATTEMPTS = 5
"""How often reading starts again because the directory changed meanwhile."""

_Stamp = tuple[str, int, int, int, int]
"""Name, device, inode, modification time (ns) and size of a file."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The manifest files of a directory at one time."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Path relative to the directory, with ``/``, to content."""
    problems: tuple[Problem, ...] = ()
    """What could not be read."""


class Directory:
    """All ``*.yaml``, ``*.yml`` and ``*.json`` files under a directory, in sub-directories too.

    Symbolic links are followed. Names that begin with a dot are left out: editors' temporary files, and the
    ``..data`` directories of a mounted ConfigMap, whose files show through links beside them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Tree:
        """The files as they are together at one moment. Blocks; whatever cannot be read becomes a problem."""
        for _ in range(_ATTEMPTS):
            before = self._stamps()
            tree = self._load()
            if self._stamps() == before:
                break
        return tree

    async def follow(self) -> AsyncGenerator[Tree, None]:
        """The tree now, and again each time it has become another one."""
        stamps = await asyncio.to_thread(self._stamps)
        last = await asyncio.to_thread(self.read)
        yield last
        async with aclosing(self._notices()) as notices:
            async for noticed in notices:
                before, stamps = stamps, await asyncio.to_thread(self._stamps)
                if not noticed and stamps == before:
                    continue
                tree = await asyncio.to_thread(self.read)
                if tree != last:
                    last = tree
                    yield tree

    async def _notices(self) -> AsyncGenerator[bool, None]:
        """True after a notified change, False at least every `_LOOK_MS` without one."""
        while True:
            watched = self._identity()
            try:
                async with aclosing(self._watch()) as events:
                    async for changes in events:
                        yield bool(changes)
                        if self._identity() != watched:
                            break
            except (OSError, RuntimeError) as error:  # watchfiles raises both
                log.debug("cannot watch %s, looking every %d ms instead: %s", self._path, _LOOK_MS, error)
                await asyncio.sleep(_LOOK_MS / 1000)
                yield False

    def _watch(self) -> AsyncGenerator[set[FileChange], None]:
        return awatch(
            self._path,
            watch_filter=None,
            debounce=_LONGEST_EDIT_MS,
            step=_SETTLE_MS,
            rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )

    def _identity(self) -> tuple[str, int, int] | None:
        """Which directory the path names now: a watch stays on the one it was made for."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return str(self._path.resolve()), found.st_dev, found.st_ino

    def _load(self) -> Tree:
        files: dict[str, bytes] = {}
        problems: list[Problem] = []
        for name in self._names(problems):
            try:
                files[_printable(name)] = _content(self._path / name)
            except OSError as error:
                problems.append(Problem(_printable(name), "", "", f"cannot be read: {error.strerror}"))
            except ValueError as error:
                problems.append(Problem(_printable(name), "", "", str(error)))
        return Tree(files, tuple(problems))

    def _stamps(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(self._path, name) for name in self._names([]))

    def _names(self, problems: list[Problem]) -> Iterator[str]:
        """Relative paths of the manifest files, in order; directories that cannot be listed are problems."""

        def unlisted(error: OSError) -> None:
            problems.append(
                Problem(_printable(error.filename), "", "", f"cannot be listed: {error.strerror}")
            )

        seen: set[str] = set()
        for folder, folders, names in os.walk(self._path, onerror=unlisted, followlinks=True):
            real = os.path.realpath(folder)
            folders[:] = [] if real in seen else sorted(each for each in folders if not each.startswith("."))
            if real in seen:
                continue
            seen.add(real)
            for name in sorted(names):
                if name.endswith(_SUFFIXES) and not name.startswith("."):
                    yield os.path.relpath(os.path.join(folder, name), self._path)


def _content(path: Path) -> bytes:
    """Raises OSError or ValueError. Never waits: opening a named pipe would."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is not a regular file")
        return file.read(MAX_BYTES + 1)


def _stamp(root: Path, name: str) -> _Stamp:
    try:
        found = os.stat(root / name)
    except OSError:
        return name, 0, 0, 0, 0
    return name, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _printable(name: str) -> str:
    """File names are bytes: those that are not UTF-8, or would break a line of the log, are escaped."""
    return name if name.isprintable() else name.encode("unicode_escape", "surrogatepass").decode()
