"""Does what `plan.step` says: spawns, watches, signals, reports."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager

from extproc.supervise import open_files, plan
from extproc.supervise.log import Lines, Log
from extproc.supervise.probe import why_not_ready
from extproc.supervise.tether import tethered

PROBE_EVERY_S = 0.05
LAST_WORDS_S = 1.0


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` for each SIGINT (Ctrl-C), SIGTERM and SIGHUP (closed terminal); needs the running loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)


async def keep_running(
    children: Sequence[plan.Child], ready: str, during: AbstractAsyncContextManager[object]
) -> None:
    """Run `children` until a signal ends it: the log goes to stderr, the line `ready` to stdout.

    `during` holds what the children live in: it is entered when signals are heeded already, and left when
    all children are gone, whatever happens.
    """

    def announce() -> None:
        with contextlib.suppress(OSError):  # nobody may be reading
            sys.stdout.write(f"{ready}\n")
            sys.stdout.flush()

    open_files.allow_many()
    with Log.to_stderr([child.name for child in children]) as log:
        supervisor = Supervisor(children, log, announce)
        stop_on_signals(supervisor.stop)
        async with during:
            await supervisor.run()


class Supervisor:
    """Keeps children running from `run()` until `stop()`; their output goes to the log."""

    def __init__(self, children: Iterable[plan.Child], log: Log, announce: Callable[[], None]) -> None:
        """`announce` is called once, when all children are ready. Raises ValueError as `plan.Fleet.of`."""
        self._fleet = plan.Fleet.of(children)
        self._log = log
        self._announce = announce
        self._events: asyncio.Queue[plan.Event] = asyncio.Queue()
        self._processes: dict[str, Process] = {}

    def stop(self) -> None:
        """Stop in order; called again: kill."""
        self._events.put_nowait(plan.StopAsked())

    async def run(self) -> None:
        """Until every child is gone; call it from the main thread (see `tether`)."""
        try:
            async with asyncio.TaskGroup() as watchers:
                event: plan.Event = plan.Tick() if self._events.empty() else self._events.get_nowait()
                while True:
                    self._fleet, actions = plan.step(self._fleet, event, _now())
                    for action in actions:
                        await self._perform(action, watchers)
                    if self._fleet.done:
                        return
                    event = await self._next_event()
        finally:
            for process in self._processes.values():  # none is left unless something here went wrong
                _kill_group(process.pid)

    async def _next_event(self) -> plan.Event:
        try:
            async with asyncio.timeout_at(self._fleet.deadline):
                return await self._events.get()
        except TimeoutError:
            return plan.Tick()

    async def _perform(self, action: plan.Action, watchers: asyncio.TaskGroup) -> None:
        match action:
            case plan.Report(text):
                self._log.own(text)
            case plan.AllReady():
                self._announce()
            case plan.Terminate(name):
                if name in self._processes:
                    with contextlib.suppress(ProcessLookupError):
                        self._processes[name].terminate()
            case plan.Kill(name):
                if name in self._processes:
                    _kill_group(self._processes[name].pid)
            case plan.Spawn(name, life):
                await self._spawn(self._fleet.children[name], life, watchers)

    async def _spawn(self, child: plan.Child, life: int, watchers: asyncio.TaskGroup) -> None:
        # A pipe of our own: the event loop would otherwise tie the exit of the child to the end of its
        # output, which a grandchild may hold open.
        output, inherited = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *tethered(child.argv),
                stdin=DEVNULL,
                stdout=inherited,
                stderr=STDOUT,
                start_new_session=True,
                env={**os.environ, **dict(child.env)},
            )
        except OSError as error:
            os.close(output)
            self._events.put_nowait(plan.SpawnFailed(child.name, life, error.strerror or str(error)))
            return
        finally:
            os.close(inherited)
        self._processes[child.name] = process
        watchers.create_task(self._watch(child, life, process, output))

    async def _watch(self, child: plan.Child, life: int, process: Process, output: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            copying = tasks.create_task(self._copy(child.name, output))
            probing = tasks.create_task(self._probe(child, life))
            status = await process.wait()
            probing.cancel()
            _kill_group(process.pid)
            await asyncio.wait([copying], timeout=LAST_WORDS_S)
            copying.cancel()
        del self._processes[child.name]
        self._events.put_nowait(plan.Exited(child.name, life, status))

    async def _probe(self, child: plan.Child, life: int) -> None:
        said = None
        while (why := await why_not_ready(child.ready)) is not None:
            if why != said:
                self._events.put_nowait(plan.NotReady(child.name, life, why))
                said = why
            await asyncio.sleep(PROBE_EVERY_S)
        self._events.put_nowait(plan.Ready(child.name, life))

    async def _copy(self, name: str, output: int) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", buffering=0)
        )
        lines = Lines()
        try:
            while chunk := await reader.read(65536):
                for line in lines.feed(chunk):
                    self._log.line(name, line)
        finally:
            for line in lines.finish():
                self._log.line(name, line)
            transport.close()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _kill_group(leader: int) -> None:
    """SIGKILL to what is left of the session that the child led."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
