"""The gRPC server: the loops that carry messages between Envoy and the pure parts.

Two services share one socket: ext_proc (one stream per HTTP request) and the access-log sink (one stream per
Envoy worker thread). Both are generic handlers over raw bytes, so that `wire` alone decides what is parsed.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import grpc
from grpc import aio

from extproc import wire
from extproc.accesslog import Outcome, settle
from extproc.decide import Decider, Plan
from extproc.exchange import Decide, Decision, Exchange, OutOfOrder, Routing, rejected
from extproc.metrics import Metrics
from extproc.rejection import Rejection
from extproc.reservations import Reservations
from extproc.wire import Encoder, Malformed

log = logging.getLogger("kvoy.extproc")

_SILENCE_S = 3.0
"""How long entries still on their way may take after their stream has ended."""


class ExtProc:
    """Answers ext_proc streams."""

    def __init__(
        self,
        decider: Decider,
        encoder: Encoder,
        metrics: Metrics,
        body_limit: int,
        perf_counter: Callable[[], float],
    ) -> None:
        self._decider = decider
        self._encoder = encoder
        self._metrics = metrics
        self._body_limit = body_limit
        self._perf_counter = perf_counter

    async def process(self, _: object, context: Any) -> None:
        """One HTTP request.

        Returns right after the last answer: a stream kept open until the response ends would make a restart
        of this service cut every response in flight, and would hold one of Envoy's circuit-breaker slots.
        """
        exchange = Exchange(self._body_limit)
        try:
            while not exchange.done:
                raw = await context.read()
                if raw is aio.EOF:
                    return
                step = exchange.receive(wire.decode(raw, self._decider.wanted_headers))
                if isinstance(step, Decide):
                    await self._carry_out(exchange, await self._decide(step), context)
                elif step is not None:
                    await context.write(self._encoder.encode(step))
        except (Malformed, OutOfOrder) as error:
            log.warning("ext_proc stream refused: %s", error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _carry_out(self, exchange: Exchange, decision: Decision, context: Any) -> None:
        try:
            for answer in exchange.decided(decision):
                await context.write(self._encoder.encode(answer))
        except BaseException:
            # Envoy has given this stream up (client gone, or another worker asked): no log entry will name
            # the reservation.
            if isinstance(decision, Routing):
                self._decider.forget(decision)
            raise

    async def _decide(self, ask: Decide) -> Decision:
        started = self._perf_counter()
        try:
            decision = self._decider.decide(ask)
            if isinstance(decision, Plan):
                decision = await self._decider.informed(decision)
        except Exception:
            # A defect must cost one request, not the worker.
            log.exception("decision failed for %s %s", ask.head.method, ask.head.path)
            decision = rejected(Rejection("internal-error", "kvoy could not decide on this request."))
        self._metrics.decided(decision, self._perf_counter() - started)
        return decision


class AccessLogSink:
    """Takes Envoy's access-log entries and settles the reservations they name."""

    def __init__(
        self,
        reservations: Reservations,
        ended: Callable[[Outcome], object],
        expired: Callable[[int], object],
        instance: str,
        clock: Callable[[], float],
    ) -> None:
        """`ended` is told of each request that ended, `expired` how many will never tell.

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
            self._expired(len(abandoned))
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
