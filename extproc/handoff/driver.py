"""Carries hand-offs out.

    async with Driver(…) as driver:
        course = driver.begin(handoff)
        try:
            decision = await course.decided()
            …                                    # Envoy gets the answer's leg
            if course.pending:
                failure = await course.failed()  # None, or what ends the answer's leg
        finally:
            await course.close()

A defect costs one request, not the worker.
"""

import asyncio
from collections.abc import Callable
from random import Random
from types import TracebackType
from typing import Self
from weakref import WeakSet

from extproc.handoff.connectors import CONNECTORS
from extproc.handoff.course import Concurrent, Course, Delegated, Sequential
from extproc.handoff.engines import Engines
from extproc.handoff.handoff import HandOff
from extproc.handoff.ledger import Accounts, Ledger, Watcher
from extproc.handoff.prefill import Prefills

HEAD_START_S = 0.010
"""How long the answer's leg of a concurrent connector is held back: a dead prefill endpoint shows by then."""


class Driver:
    """Carries hand-offs out while it is open (``async with``)."""

    def __init__(
        self,
        engines: Engines,
        accounts: Accounts,
        watcher: Watcher,
        rng: Random,
        clock: Callable[[], float],
        head_start_s: float = HEAD_START_S,
    ) -> None:
        """`rng` draws rooms; `clock` in seconds, from any start."""
        self._prefills = Prefills(engines, rng, clock)
        self._accounts = accounts
        self._watcher = watcher
        self._clock = clock
        self._head_start_s = head_start_s
        self._tasks = asyncio.TaskGroup()
        self._concurrent: WeakSet[Concurrent] = WeakSet()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_up()
        await self._tasks.__aexit__(kind, error, trace)

    def begin(self, handoff: HandOff) -> Course:
        """The course of a hand-off; nothing is under way before its `decided` is awaited."""
        ledger = Ledger(handoff, self._accounts, self._watcher, self._clock)
        match CONNECTORS[handoff.connector].order:
            case "sequential":
                return Sequential(handoff, ledger, self._prefills)
            case "sidecar":
                return Delegated(handoff, ledger, self._prefills)
            case "concurrent":
                course = Concurrent(handoff, ledger, self._prefills, self._tasks, self._head_start_s)
                self._concurrent.add(course)
                return course

    def give_up(self) -> None:
        """End all prefills that decode endpoints wait for; `Course.failed` has the error for the client."""
        for course in list(self._concurrent):
            course.give_up()
