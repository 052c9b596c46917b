"""The ADS server: streams of aggregated discovery, state of the world, on a Unix socket."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import quote

import grpc
import grpc.aio
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryRequest, DiscoveryResponse
from envoy_data_plane.google.protobuf import Any

from controller.xds.outbox import Outbox
from controller.xds.resources import Resources
from controller.xds.session import Refusal, Request, Response, Session

logger = logging.getLogger("kvoy.xds")

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


class Ads:
    """Serves the last offered resources to every Envoy that connects.

    Before the first offer a stream is held open and gets nothing, so an Envoy keeps what it has.
    """

    def __init__(self) -> None:
        self._resources: Resources | None = None
        self._offered = asyncio.Event()
        self._streams: set[_Stream] = set()
        self._moved = asyncio.Event()
        self._numbers = count(1)

    @property
    def connected(self) -> int:
        """How many Envoys are connected."""
        return len(self._streams)

    async def serve(self, socket: str) -> None:
        """Serve on the Unix socket `socket` until cancelled; raises RuntimeError if it cannot be bound."""
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream, request_deserializer=DiscoveryRequest.FromString, response_serializer=bytes
        )
        methods = {"StreamAggregatedResources": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        server.add_insecure_port(f"unix:{quote(socket)}")  # which gRPC reverses
        await server.start()
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(grace=None)

    def offer(self, resources: Resources) -> None:
        """Serve `resources` from now on; an Envoy is sent the types that differ from what it has."""
        self._resources = resources
        self._offered.set()
        for stream in self._streams:
            stream.post(stream.session.on_offer(resources))
        self._announce()

    async def accepted(self, timeout_s: float) -> bool:
        """Whether every connected Envoy takes the last offer, waiting up to `timeout_s` seconds for it.

        True at once when none is connected; False as soon as one refuses a part of it.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while "pending" in (verdicts := {stream.session.verdict for stream in self._streams}):
                    if "refused" in verdicts:
                        return False
                    await self._moved.wait()
                return "refused" not in verdicts
        except TimeoutError:
            return False

    @property
    def refused(self) -> bool:
        """Some connected Envoy refuses a part of the last offer; the log says which and why."""
        return any(stream.session.verdict == "refused" for stream in self._streams)

    async def _stream(self, _: object, context: grpc.aio.ServicerContext) -> None:
        await self._offered.wait()
        assert self._resources is not None
        stream = _Stream(Session(self._resources, lambda: str(next(self._numbers))), self._announce)
        self._streams.add(stream)
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(stream.write_to(context))
                await stream.read_from(context)
                writer.cancel()
        finally:
            self._streams.discard(stream)
            self._announce()

    def _announce(self) -> None:
        """Wake whoever waits for the Envoys' verdict."""
        self._moved.set()
        self._moved = asyncio.Event()


@dataclass(eq=False, slots=True)
class _Stream:
    """The I/O around one session."""

    session: Session
    announce: Callable[[], None]
    node: str = "?"
    outbox: Outbox = field(default_factory=Outbox)

    async def read_from(self, context: grpc.aio.ServicerContext) -> None:
        """Take requests until Envoy ends the stream."""
        while (message := await context.read()) is not grpc.aio.EOF:
            if message.node is not None:
                self.node = message.node.id
                logger.info("Envoy %s is connected", self.node)
            self.post(self.session.on_request(_request(message)))
            self.announce()

    async def write_to(self, context: grpc.aio.ServicerContext) -> None:
        """Send what was posted, in order; a response that a newer one overtakes is not sent."""
        while True:
            await context.write(_discovery_response(await self.outbox.take()))

    def post(self, outputs: Iterable[Response | Refusal]) -> None:
        """Queue responses, log refusals."""
        for output in outputs:
            match output:
                case Response():
                    self.outbox.post(output)
                case Refusal(type_url, version, message):
                    kind = type_url.rpartition(".")[2]
                    logger.error(
                        "Envoy %s refuses %s %s and keeps what it had: %s", self.node, kind, version, message
                    )


def _request(message: DiscoveryRequest) -> Request:
    error = message.error_detail
    return Request(
        type_url=message.type_url,
        names=frozenset(message.resource_names),
        nonce=message.response_nonce,
        error=None if error is None else error.message,
    )


def _discovery_response(response: Response) -> DiscoveryResponse:
    return DiscoveryResponse(
        version_info=response.version,
        type_url=response.type_url,
        nonce=response.nonce,
        resources=[Any(type_url=response.type_url, value=raw) for raw in response.resources.values()],
    )
