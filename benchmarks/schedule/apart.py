"""A function in a fresh process of its own, with a line to its parent."""

import asyncio
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

_LOOK_S = 0.01
_END_S = 20.0
_spawn = multiprocessing.get_context("spawn")


class Line:
    """The child's end of the line."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ready(self) -> None:
        """Say that this process is ready, and wait until the parent speaks."""
        self._connection.send(None)
        await self.told()

    async def told(self) -> None:
        """Wait until the parent speaks; raises EOFError where it has gone."""
        while not self._connection.poll():
            await asyncio.sleep(_LOOK_S)
        self._connection.recv()


class Apart(Generic[T]):
    """A process that runs ``function(line, *args)``; it ends with the block at the latest."""

    def __init__(self, function: Callable[..., T], *args: Any) -> None:
        self._connection, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_run, args=(theirs, function, args), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(_END_S if kind is None else _LOOK_S * 100)
        self._process.kill()
        self._process.join()

    def ready(self) -> None:
        """Wait until it is ready."""
        self._hear()

    def tell(self) -> None:
        """Let it go on."""
        self._connection.send(None)

    def result(self) -> T:
        """What the function returned. Raises RuntimeError where it failed: its traceback is on stderr."""
        found: T = self._hear()
        return found

    def _hear(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise RuntimeError("a process of the benchmark failed; stderr says why") from None


def apart(function: Callable[..., T], *args: Any) -> T:
    """What ``function(line, *args)`` returns in a fresh process."""
    with Apart(function, *args) as process:
        return process.result()


def _run(connection: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    with connection:
        connection.send(function(Line(connection), *args))
