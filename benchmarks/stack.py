"""`kvoy up` as a child process, for benchmarks and end-to-end tests: the real thing, started and stopped."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import descendants
from controller.up.ready import Ready
from extproc.supervise import python

START_S = 60.0
STOP_S = 20.0
_READY = "kvoy is ready: "


class NotStarted(Exception):
    """`kvoy up` ended or did not get ready in time; the message ends with its log."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running `kvoy up`."""

    url: str
    """Where clients send requests."""
    admins: tuple[str, ...]
    """Admin endpoint of each worker."""
    pid: int
    log_file: Path

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self.log_file.read_text()

    def processes(self) -> dict[int, str]:
        """Pid to command line of everything it runs."""
        return descendants(self.pid)

    def pids(self, part: str) -> list[int]:
        """Processes whose command line contains `part`, by pid."""
        return sorted(pid for pid, command in self.processes().items() if part in command)


@asynccontextmanager
async def kvoy_up(folder: Path, *options: str) -> AsyncIterator[Stack]:
    """Run ``kvoy up -f folder --port 0 …`` until the block ends. Raises `NotStarted`."""
    # A file takes the log, not a pipe: nobody has to read it while the block runs.
    with tempfile.NamedTemporaryFile(prefix="kvoy-log-") as log:
        process = await asyncio.create_subprocess_exec(
            *python("-m", "extproc.cli", "up", "-f", str(folder), "--port", "0", "--admin-port", "0"),
            *options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log.fileno(),
            stderr=log.fileno(),
        )
        try:
            ready = await _ready(process, Path(log.name))
            yield Stack(ready.url, ready.admin, process.pid, Path(log.name))
        finally:
            await _stop(process)


async def _ready(process: asyncio.subprocess.Process, log: Path) -> Ready:
    try:
        async with asyncio.timeout(START_S):
            while (line := _ready_line(log)) is None:
                if process.returncode is not None:
                    raise NotStarted(f"kvoy up ended with status {process.returncode}:\n{log.read_text()}")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise NotStarted(f"kvoy up was not ready within {START_S:.0f} s:\n{log.read_text()}") from None
    return Ready.parse(line)


def _ready_line(log: Path) -> str | None:
    lines = log.read_text().splitlines(keepends=True)
    return next((line for line in lines if line.startswith(_READY) and line.endswith("\n")), None)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.wait()
