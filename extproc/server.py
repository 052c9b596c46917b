"""The gRPC server: the loops that carry messages between Envoy and the pure parts.

Two services share one socket: ext_proc (one stream per HTTP request) and the access-log sink (one stream per
Envoy worker thread). Both are generic handlers over raw bytes, so that `wire` alone decides what is parsed.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import grpc
from grpc import aio

from extproc import wire
from extproc.accesslog import Outcome, settle
from extproc.decide import Decider
from extproc.exchange import (
    Decide,
    Decision,
    Exchange,
    KeepWaiting,
    LeaveToWatch,
    LocalAnswer,
    OutOfOrder,
    Routing,
    rejected,
)
from extproc.handoff.course import Course
from extproc.handoff.driver import Driver
from extproc.handoff.handoff import HandOff
from extproc.metrics import Metrics
from extproc.plan import Plan
from extproc.rejection import Rejection
from extproc.reservations import Reservation, Reservations
from extproc.state import envoy
from extproc.wire import Encoder, Malformed

log = logging.getLogger("kvoy.extproc")

_SILENCE_S = 3.0
"""How long entries still on their way may take after their stream has ended."""
_FOR_PREFILLS = 0.8
"""Share of the time for finishing that a prefill has which an answer waits for."""


class ExtProc:
    """Answers ext_proc streams."""

    def __init__(
        self,
        decider: Decider,
        driver: Driver,
        encoder: Encoder,
        metrics: Metrics,
        body_limit: int,
        perf_counter: Callable[[], float],
    ) -> None:
        self._decider = decider
        self._driver = driver
        self._encoder = encoder
        self._metrics = metrics
        self._body_limit = body_limit
        self._perf_counter = perf_counter

    async def process(self, _: object, context: Any) -> None:
        """One HTTP request.

        Returns right after the last answer: a stream kept open until the response ends would make a restart
        of this service cut every response in flight, and would hold one of Envoy's circuit-breaker slots.
        Only while a prompt is computed that a decode engine waits for, the stream stays open: either side can
        tell the other that it has no use any more, and the filter that asked ends the request if this worker
        is lost.
        """
        exchange = Exchange(self._body_limit)
        try:
            while not exchange.done:
                raw = await context.read()
                if raw is aio.EOF:
                    return
                step = exchange.receive(wire.decode(raw, self._decider.wanted_headers))
                if isinstance(step, Decide):
                    decision = await self._decide(step, context)
                    if isinstance(decision, HandOff):
                        await self._hand_over(exchange, decision, context)
                    else:
                        await self._carry_out(exchange, decision, context)
                elif step is not None:
                    await context.write(self._encoder.encode(step))
        except (Malformed, OutOfOrder) as error:
            log.warning("ext_proc stream refused: %s", error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _carry_out(self, exchange: Exchange, decision: Decision | LeaveToWatch, context: Any) -> None:
        writing: asyncio.Future[None] | None = None
        try:
            for answer in exchange.decided(decision):
                # Not ended with this task, and awaited in any case: what was written has to be known.
                writing = asyncio.ensure_future(context.write(self._encoder.encode(answer)))  # noqa: TID251
                await asyncio.shield(writing)
        except BaseException:
            # If Envoy has given this stream up (client gone, or another worker asked), no log entry will name
            # the reservation. But it also closes the stream once it has the last answer, which this task may
            # hear of before the end of its own writing.
            if isinstance(decision, Routing) and not await _written(writing):
                self._decider.forget(decision)
            raise

    async def _hand_over(self, exchange: Exchange, handoff: HandOff, context: Any) -> None:
        """Have the prompt computed, and the answer begun as soon as that is possible."""
        course = self._driver.begin(handoff)
        try:
            decision = await self._handed_over(exchange, course, handoff, context)
            await self._carry_out(exchange, decision, context)
            if course.pending:
                failure = await course.failed()
                if failure is not None:
                    self._metrics.answered(failure)
                    await context.write(self._encoder.encode(failure))
        finally:
            await course.close()

    async def _handed_over(
        self, exchange: Exchange, course: Course, handoff: HandOff, context: Any
    ) -> Decision:
        try:
            if course.longest_s and exchange.timed:
                await context.write(self._encoder.encode(KeepWaiting(course.longest_s)))
            decision = await course.decided()
        except BaseException:
            self._decider.refused(handoff)
            raise
        if isinstance(decision, LocalAnswer):
            self._metrics.answered(decision)
            self._decider.refused(handoff)
        return decision

    async def _decide(self, ask: Decide, context: Any) -> Decision | LeaveToWatch | HandOff:
        started = self._perf_counter()
        decision: Decision | LeaveToWatch | HandOff | Plan

        def may_stay() -> bool:
            return _watch(context) != envoy.WATCH_OFFERED

        try:
            decision = self._decider.decide(ask, may_stay)
            if isinstance(decision, Plan):
                decision = await self._decider.informed(decision, may_stay)
        except Exception:
            # A defect must cost one request, not the worker.
            log.exception("decision failed for %s %s", ask.head.method, ask.head.path)
            decision = rejected(Rejection("internal-error", "kvoy could not decide on this request."))
        self._metrics.decided(decision, self._perf_counter() - started)
        return decision


async def _written(writing: asyncio.Future[None] | None) -> bool:
    """Whether a message has left for Envoy: the writing of a stream that was closed before fails."""
    if writing is None:
        return False
    await asyncio.wait((writing,))
    return not writing.cancelled() and writing.exception() is None


def _watch(context: Any) -> str | None:
    """What the asking filter said of itself."""
    metadata = context.invocation_metadata() or ()
    return next((value for key, value in metadata if key == envoy.WATCH_KEY), None)


class AccessLogSink:
    """Takes Envoy's access-log entries and settles the reservations they name."""

    def __init__(
        self,
        reservations: Reservations,
        ended: Callable[[Outcome], object],
        expired: Callable[[Sequence[Reservation]], object],
        instance: str,
        clock: Callable[[], float],
    ) -> None:
        """`ended` is told of each request that ended, `expired` of those that nobody will tell of.

        `clock` is that of `reservations`.
        """
        self._reservations = reservations
        self._ended = ended
        self._expired = expired
        self._instance = instance
        self._clock = clock
        self._closed = asyncio.Event()
        self._streams = 0
        self._silent_since: float | None = None
        """When the last open stream ended."""

    def close(self) -> None:
        """End every stream: Envoy keeps them open for ever, and a stopping server would wait for them."""
        self._closed.set()

    async def collect(self, _: object, context: Any) -> bytes:
        """One stream of Envoy's, until it or `close` ends it."""
        self._streams += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                closing = tasks.create_task(self._closed.wait())
                reading = tasks.create_task(self._read(context))
                await asyncio.wait((closing, reading), return_when=asyncio.FIRST_COMPLETED)
                closing.cancel()
                reading.cancel()
        finally:
            self._streams -= 1
            if not self._streams:
                self._silent_since = self._clock()
        return b""

    def sweep(self) -> None:
        """Drop reservations that no entry will release; to be called every second or so.

        Envoy keeps its streams open for as long as it lives. So when the last one has ended, whoever was to
        report on the requests placed before is gone, and they with it.
        """
        abandoned = self._reservations.expire()
        silent = self._silent_since
        if silent is not None and self._clock() - silent >= _SILENCE_S:
            abandoned += self._reservations.abandon(silent)
            self._silent_since = None
        if abandoned:
            self._expired(abandoned)
            log.warning("dropped %d reservations: Envoy will not tell how they ended", len(abandoned))

    async def _read(self, context: Any) -> None:
        while (raw := await context.read()) is not aio.EOF:
            try:
                for entry in wire.entries(raw):
                    outcome = settle(entry, self._reservations, self._instance)
                    if outcome is not None:
                        self._tell(outcome)
            except Malformed as error:
                log.warning("access-log message dropped: %s", error)

    def _tell(self, outcome: Outcome) -> None:
        try:
            self._ended(outcome)
        except Exception:
            # A defect must cost one lesson, not the stream and with it the reservations of all others.
            log.exception("the end of request %s was not taken in", outcome.entry.request_id[:64])


def grpc_server(extproc: ExtProc, sink: AccessLogSink, socket: str) -> aio.Server:
    """Both services on one Unix socket; not started yet. gRPC reads %xx in a path: it is quoted here."""
    # Body size is bounded by Envoy (buffered) and by Exchange (full duplex), not by gRPC's 4 MiB default.
    server = aio.server(
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "envoy.service.ext_proc.v3.ExternalProcessor",
                {"Process": grpc.stream_stream_rpc_method_handler(extproc.process)},
            ),
            grpc.method_handlers_generic_handler(
                "envoy.service.accesslog.v3.AccessLogService",
                {"StreamAccessLogs": grpc.stream_unary_rpc_method_handler(sink.collect)},
            ),
        )
    )
    server.add_insecure_port(f"unix:{quote(socket)}")
    return server


async def drain(server: aio.Server, driver: Driver, within_s: float) -> None:
    """Take no new streams and let those that are open finish.

    A prefill that an answer waits for is ended in time to tell whoever waits.
    """
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(server.stop(within_s))
        await asyncio.wait((stopping,), timeout=within_s * _FOR_PREFILLS)
        driver.give_up()
