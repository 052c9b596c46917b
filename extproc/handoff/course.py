"""How a hand-off goes: one leg after the other, or both at once.

`driver.Driver` begins courses. Each ends in one of the ways of `ledger.Ending`, whatever happens.
"""

import asyncio
from dataclasses import replace

from extproc.exchange import LocalAnswer, Routing, Transferred
from extproc.handoff.body import decode_body
from extproc.handoff.connector import Connector, Leg, Transfer
from extproc.handoff.connectors import CONNECTORS
from extproc.handoff.handoff import TRIES, HandOff
from extproc.handoff.ledger import Ledger
from extproc.handoff.prefill import QUERY_S, Computed, Failed, Prefills
from extproc.state.snapshot import Endpoint


class Course:
    """One hand-off under way."""

    def __init__(self, handoff: HandOff, ledger: Ledger, prefills: Prefills) -> None:
        self._handoff = handoff
        self._ledger = ledger
        self._prefills = prefills
        self._connector: Connector = CONNECTORS[handoff.connector]

    @property
    def longest_s(self) -> float:
        """Until `decided`, at most; 0 where that is at once."""
        return 0.0

    async def decided(self) -> Routing | LocalAnswer:
        """How it goes on, once that is known. To be awaited once; cancelled, it ends the course."""
        try:
            return await self._decide()
        except BaseException:
            self._ledger.left()
            raise

    @property
    def pending(self) -> bool:
        """After `decided`: a prefill is still under way, or has failed by now. `failed` has to be awaited."""
        return False

    async def failed(self) -> LocalAnswer | None:
        """Wait for that prefill's end: the answer that ends the waiting decode, None if all is well.

        Cancelled, it ends the course.
        """
        return None

    async def close(self) -> None:
        """Nobody waits any more: what is under way ends now. Does nothing to a course that has ended."""
        self._ledger.left()

    async def _decide(self) -> Routing | LocalAnswer:
        raise NotImplementedError


class Delegated(Course):
    """A proxy on the decode pod asks the prefill endpoint."""

    async def _decide(self) -> Routing | LocalAnswer:
        transfer = await self._prefills.transfer(self._handoff, self._handoff.prefills[0])
        routing = _routed(self._handoff, self._connector, self._connector.decode(transfer, None))
        self._ledger.left_to_sidecar()
        return routing


class _Trying(Course):
    """Tries prefill endpoints until one takes the prompt."""

    async def _decide(self) -> Routing | LocalAnswer:
        endpoints = self._handoff.prefills[:TRIES]
        for number, endpoint in enumerate(endpoints, 1):
            found = await self._try(endpoint)
            if isinstance(found, Routing):
                return found
            failed = found
            if failed.final or number == len(endpoints):
                break
            self._ledger.moved(endpoints[number])
        alone = self._handoff.decode_alone and self._connector.decodes_alone
        self._ledger.failed(alone=alone)
        return self._handoff.routing if alone else failed.answer()

    async def _try(self, endpoint: Endpoint) -> Routing | Failed:
        began = self._ledger.clock()
        try:
            found = await self._attempt(endpoint, began)
        except asyncio.CancelledError:
            self._ledger.tried(endpoint, "left", began)
            raise
        except Exception as error:
            found = Failed.of(error)
        if isinstance(found, Failed):
            self._ledger.tried(endpoint, found.result, began)
        return found

    async def _attempt(self, endpoint: Endpoint, began: float) -> Routing | Failed:
        """One try; an exception means that it failed, too."""
        raise NotImplementedError


class Sequential(_Trying):
    """The answer's leg begins when the prompt is computed."""

    @property
    def longest_s(self) -> float:
        return self._handoff.longest_s

    async def _attempt(self, endpoint: Endpoint, began: float) -> Routing:
        transfer = await self._prefills.transfer(self._handoff, endpoint)
        computed = await self._prefills.compute(self._handoff, transfer)
        routing = _routed(self._handoff, self._connector, self._connector.decode(transfer, computed.reply))
        self._ledger.tried(endpoint, "computed", began)
        self._ledger.computed(computed.reply, computed.seconds)
        return routing


class Concurrent(_Trying):
    """The answer's leg begins a little after the prompt's: time enough to see that nobody listens there."""

    def __init__(
        self,
        handoff: HandOff,
        ledger: Ledger,
        prefills: Prefills,
        tasks: asyncio.TaskGroup,
        head_start_s: float,
    ) -> None:
        super().__init__(handoff, ledger, prefills)
        self._tasks = tasks
        self._head_start_s = head_start_s
        self._prefill: _Prefill | None = None
        """The one that the decode endpoint waits for."""

    @property
    def longest_s(self) -> float:
        return TRIES * (self._head_start_s + QUERY_S) if self._connector.asks_engine_id else 0.0

    @property
    def pending(self) -> bool:
        return self._prefill is not None and not self._prefill.computed

    async def failed(self) -> LocalAnswer | None:
        return None if self._prefill is None else await self._prefill.failed()

    async def close(self) -> None:
        if self._prefill is None:
            self._ledger.left()
        else:
            await self._prefill.cancel()

    def give_up(self) -> None:
        """The worker stops: the prefill ends now, and its decode must not wait for it."""
        if self._prefill is not None:
            self._prefill.give_up()

    async def _attempt(self, endpoint: Endpoint, began: float) -> Routing | Failed:
        transfer = await self._prefills.transfer(self._handoff, endpoint)
        routing = _routed(self._handoff, self._connector, self._connector.decode(transfer, None))
        task = self._tasks.create_task(self._compute(transfer))
        try:
            await asyncio.wait((task,), timeout=self._head_start_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done() and isinstance(failed := task.result(), Failed):
            return failed
        self._prefill = _Prefill(task, self._ledger, endpoint, began)
        return routing

    async def _compute(self, transfer: Transfer) -> Computed | Failed:
        """Never raises: an error in a task would end all tasks of the worker."""
        try:
            return await self._prefills.compute(self._handoff, transfer)
        except Exception as error:
            return Failed.of(error)


class _Prefill:
    """A prefill under way, for which a decode endpoint waits. Its end is entered, whoever looks."""

    def __init__(
        self, task: asyncio.Task[Computed | Failed], ledger: Ledger, endpoint: Endpoint, began: float
    ) -> None:
        self._task = task
        self._ledger = ledger
        self._endpoint = endpoint
        self._began = began
        self._given_up = False
        self._answer: LocalAnswer | None = None
        self._entered = False
        task.add_done_callback(self._enter)

    @property
    def computed(self) -> bool:
        task = self._task
        return task.done() and not task.cancelled() and isinstance(task.result(), Computed)

    async def failed(self) -> LocalAnswer | None:
        try:
            await asyncio.wait((self._task,))
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        self._enter(self._task)
        return self._answer

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._enter(self._task)

    def give_up(self) -> None:
        self._given_up = self._task.cancel()

    def _enter(self, task: asyncio.Task[Computed | Failed]) -> None:
        if self._entered:
            return
        self._entered = True
        found = Failed("left") if task.cancelled() else task.result()
        if isinstance(found, Computed):
            self._ledger.tried(self._endpoint, "computed", self._began)
            self._ledger.computed(found.reply, found.seconds)
            return
        left = found.result == "left" and not self._given_up
        self._answer = None if left else found.answer()
        self._ledger.tried(self._endpoint, found.result, self._began)
        if left:
            self._ledger.left()
        else:
            self._ledger.failed(alone=False)


def _routed(handoff: HandOff, connector: Connector, leg: Leg) -> Routing:
    """The answer's leg, with what it needs of the transfer."""
    if not (leg.fields or leg.headers):
        return handoff.routing
    body, start, length = handoff.routing.body, 0, 0
    if leg.fields:
        body, start, length = decode_body(handoff.body, leg.fields)
    needed = not (connector.decodes_alone and handoff.decode_alone)
    return replace(
        handoff.routing,
        body=body,
        headers=(*handoff.routing.headers, *leg.headers.items()),
        transferred=Transferred(start, length, handoff.partners, connector.tries, needed),
    )
