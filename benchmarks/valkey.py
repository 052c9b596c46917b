"""A real Valkey of one's own, on a Unix socket, that keeps nothing on disk."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.up import binaries
from extproc.supervise import tethered

_START_S = 60.0


@contextmanager
def valkey() -> Iterator[str]:
    """Run a server until the block ends; gives its URL. Raises TimeoutError."""
    folder = Path(tempfile.mkdtemp(prefix="kvoy-bench-", dir="/tmp"))
    socket = folder / "v.sock"
    options = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder))
    process = subprocess.Popen(tethered((binaries.valkey(), *options)), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_S
        while not socket.exists():
            if time.monotonic() > deadline or process.poll() is not None:
                raise TimeoutError("valkey-server does not start")
            time.sleep(0.01)
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)
