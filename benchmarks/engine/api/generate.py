"""Runs a generation dialect: plain or streamed, with the fault that hits the request."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager

import msgspec
from aiohttp import web

from benchmarks.engine.api import errors, sse
from benchmarks.engine.api.ask import Choice, Dialect, Envelope, Transcript, plan
from benchmarks.engine.api.context import ENTRY, RANK, Context
from benchmarks.engine.batch import QueueFullError
from benchmarks.engine.faults import Die, Hang, RequestFault, Reset, Status
from benchmarks.engine.runtime import Run, Runtime, Work
from benchmarks.engine.tokens import piece
from benchmarks.engine.transfer.part import Asked, Part, TransferError

RANK_HEADER = "x-data-parallel-rank"

_encode = msgspec.json.Encoder().encode


class ResetConnectionError(Exception):
    """A fault asks to reset the connection of this request."""


class KilledError(Exception):
    """A fault asks the engine to die at this request."""


Strike = Hang | Reset | Die
Interruption = Strike | None


async def interruption(fault: RequestFault | None) -> Interruption:
    """What a fault leaves to do once tokens flow; those that need no token strike here."""
    if isinstance(fault, Status):
        raise errors.told_to_fail(fault.status)
    if fault is not None and fault.after_tokens == 0:
        await _strike(fault)
    return fault


def json_answer(body: object, status: int = 200) -> web.Response:
    """A plain JSON answer."""
    return web.Response(body=_encode(body), status=status, content_type="application/json")


@contextmanager
def admitted(runtime: Runtime, works: Sequence[Work], n: int = 1) -> Iterator[list[Run]]:
    """`Runtime.enter`, with vLLM's answer for a full queue."""
    try:
        with runtime.enter(works, n) as runs:
            yield runs
    except QueueFullError:
        raise errors.queue_full() from None


def chosen(request: web.Request, context: Context) -> Runtime:
    """The rank that computes a request: its header's, or the least loaded; ApiError 400 for none such."""
    ranks = context.ranks
    wanted = request.headers.get(RANK_HEADER, "")
    # vLLM reads the header as Python does a number, and goes on without it if it is none.
    try:
        rank = int(wanted)
    except ValueError:
        runtime = ranks.least_loaded()
    else:
        if not 0 <= rank < len(ranks):
            raise errors.no_such_rank(rank, len(ranks))
        runtime = ranks.runtimes[rank]
    request[RANK] = request[ENTRY].rank = runtime.rank
    return runtime


async def generate(
    request: web.Request, request_id: str, dialect: Dialect, context: Context, fault: Interruption
) -> web.StreamResponse:
    """Answer a generation request."""
    ask = dialect.ask
    works = plan(ask, context.models, context.settings)
    envelope = context.envelope(request_id, ask.model)
    runtime = chosen(request, context)
    asked = Asked(ask.engine_name.format(request_id), ask.transfer, works, ask.stream)
    part = context.desk.part(asked)
    with context.desk.dock.open(part), admitted(runtime, part.works, ask.n) as runs:
        if not ask.stream:
            return await _plain(dialect, envelope, part, runs, runtime, fault)
        writer = _Writer(request, dialect.transcript(envelope, part.works), fault)
        return await writer.write(part, runs, runtime)


async def _plain(
    dialect: Dialect,
    envelope: Envelope,
    part: Part,
    runs: Sequence[Run],
    runtime: Runtime,
    fault: Interruption,
) -> web.Response:
    try:
        for run in runs:
            if fault is not None and fault.after_tokens <= len(run.work.output):
                await runtime.wait(run, fault.after_tokens)
                await _strike(fault)
            await runtime.wait(run)
        await part.delivered()
    except TransferError:
        runtime.metrics.failed()
        raise errors.transfer_failed() from None
    body = dialect.whole(envelope, _choices(runs))
    params = part.params(runs[0].prefilled.result())
    return json_answer(body if params is None else {**body, "kv_transfer_params": params})


class _Writer:
    """Writes one streamed answer, choice after choice."""

    def __init__(self, request: web.Request, transcript: Transcript, fault: Interruption) -> None:
        self._request = request
        self._transcript = transcript
        self._fault = fault
        self._response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})

    async def write(self, part: Part, runs: Sequence[Run], runtime: Runtime) -> web.StreamResponse:
        await self._response.prepare(self._request)
        try:
            await self._tokens(runs, runtime)
            await part.delivered()
            last = self._transcript.closing(_choices(runs))
        except TransferError:
            # The headers are gone, so that the error is an event, as in vLLM.
            runtime.metrics.failed()
            last = sse.data(errors.transfer_failed().body()) + sse.DONE
        await self._response.write_eof(last)
        return self._response

    async def _tokens(self, runs: Sequence[Run], runtime: Runtime) -> None:
        first = await runtime.computed(runs[0])
        head = self._transcript.opening(first)
        for index, run in enumerate(runs):
            async with aclosing(runtime.tokens(run)) as bursts:
                sent = 0
                async for burst in bursts:
                    for text in map(piece, burst):
                        sent += 1
                        last = sent == len(run.work.output)
                        head += self._transcript.token(index, text, last)
                        if self._fault is not None and sent == self._fault.after_tokens:
                            await self._interrupt(head, self._fault)
                    await self._response.write(head)
                    head = b""

    async def _interrupt(self, head: bytes, fault: Strike) -> None:
        await self._response.write(head)
        await _strike(fault)


async def _strike(fault: Strike) -> None:
    # The loop hands what was written to the kernel at the end of this turn; a reset before that loses it.
    await asyncio.sleep(0)
    if isinstance(fault, Reset):
        raise ResetConnectionError
    if isinstance(fault, Die):
        raise KilledError
    await asyncio.Event().wait()


def _choices(runs: Sequence[Run]) -> list[Choice]:
    return [Choice(run.work, run.prefilled.result()) for run in runs]
