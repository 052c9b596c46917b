"""One log for many processes: whole lines, each with the name of its process.

Lines go through a bounded queue to a thread, so that a slow reader (a paused terminal, a full pipe) never
blocks the supervisor or its children: then lines are dropped and counted.
"""

import os
import select
import sys
import threading
from collections.abc import Iterable
from queue import Empty, Full, Queue
from types import TracebackType

LONGEST_LINE = 16 * 1024
"""Bytes; the rest of a longer line is cut."""
QUEUED_LINES = 10_000
LAST_WORDS_S = 2.0
OWN_NAME = "kvoy"
"""The supervisor's own lines bear this name."""
COLOURS = (36, 33, 32, 35, 34, 31)


class Lines:
    """Pure: cuts a stream of bytes into lines without their ends; holds at most `LONGEST_LINE` bytes."""

    def __init__(self) -> None:
        self._part = bytearray()
        self._cut = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes."""
        *ends, rest = chunk.split(b"\n")
        lines = []
        for end in ends:
            self._add(end)
            lines.append(self._taken())
        self._add(rest)
        return lines

    def finish(self) -> list[bytes]:
        """The last line, if it has no end."""
        return [self._taken()] if self._part else []

    def _add(self, piece: bytes) -> None:
        room = LONGEST_LINE - len(self._part)
        self._part += piece[:room]
        self._cut += max(0, len(piece) - room)

    def _taken(self) -> bytes:
        line = bytes(self._part).rstrip(b"\r")
        if self._cut:
            line += f" … [{self._cut} bytes cut]".encode()
        self._part.clear()
        self._cut = 0
        return line


class Log:
    """Writes lines to a file descriptor; a context manager, whose end writes what is left.

    `names` (and `OWN_NAME`) are aligned, and coloured if `colour`.
    """

    def __init__(self, fd: int, names: Iterable[str], *, colour: bool) -> None:
        self._fd = fd
        self._prefixes = prefixes((OWN_NAME, *names), colour=colour)
        self._queue: Queue[bytes | None] = Queue(QUEUED_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)

    @classmethod
    def to_stderr(cls, names: Iterable[str]) -> "Log":
        """To standard error, coloured on a terminal unless NO_COLOR is set."""
        return cls(sys.stderr.fileno(), names, colour=sys.stderr.isatty() and not os.environ.get("NO_COLOR"))

    def __enter__(self) -> "Log":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._dropped:
                self._queue.put(self._prefixes[OWN_NAME] + _lost(self._dropped), timeout=LAST_WORDS_S)
            self._queue.put(None, timeout=LAST_WORDS_S)
        except Full:
            return  # nobody reads; the thread is a daemon
        self._thread.join(LAST_WORDS_S)

    def own(self, text: str) -> None:
        """Queue one line of the supervisor; never blocks."""
        self.line(OWN_NAME, text.encode())

    def line(self, name: str, text: bytes) -> None:
        """Queue one line of `name`; never blocks."""
        if self._dropped and not self._put(self._prefixes[name] + _lost(self._dropped)):
            self._dropped += 1
            return
        self._dropped = 0
        if not self._put(self._prefixes[name] + text + b"\n"):
            self._dropped = 1

    def _put(self, line: bytes) -> bool:
        try:
            self._queue.put_nowait(line)
        except Full:
            return False
        return True

    def _write_all(self) -> None:
        while (line := self._queue.get()) is not None:
            batch = [line]
            ended = False
            while not ended and len(batch) < 100:
                try:
                    more = self._queue.get_nowait()
                except Empty:
                    break
                if more is None:
                    ended = True
                else:
                    batch.append(more)
            _write(self._fd, b"".join(batch))
            if ended:
                return


def prefixes(names: Iterable[str], *, colour: bool) -> dict[str, bytes]:
    """Name to what starts its lines: all of one width."""
    listed = list(names)
    width = max(map(len, listed), default=0)
    plain = {name: f"{name.ljust(width)} | " for name in listed}
    if not colour:
        return {name: text.encode() for name, text in plain.items()}
    return {
        name: f"\x1b[{COLOURS[at % len(COLOURS)]}m{text}\x1b[0m".encode()
        for at, (name, text) in enumerate(plain.items())
    }


def _lost(lines: int) -> bytes:
    return f"[{lines} lines of this log were lost: its reader is too slow]\n".encode()


def _write(fd: int, data: bytes) -> None:
    """All of `data`, also to a non-blocking descriptor; given up when nobody can read it any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            # Not select(), which takes no descriptor above 1023.
            writable = select.poll()
            writable.register(fd, select.POLLOUT)
            writable.poll()
        except OSError:
            return
