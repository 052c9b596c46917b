"""A minimal ext_proc worker: ext_proc and access-log services on one Unix socket, its behaviour scripted.

Runs inside a test, or, where a test wants to kill it, as a process of its own: ``python stub_worker.py SOCKET
NAME CLUSTER ENDPOINTS BEHAVIOUR``.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as wire

Context = grpc.aio.ServicerContext


@dataclass
class StubWorker:
    """Sends every request to `cluster`, offering `endpoints` in order, unless `behaviour` is replaced."""

    name: str
    socket: str
    cluster: str = ""
    endpoints: str = ""
    told: str = ""
    """What it says of its decisions, in metadata."""
    behaviour: "Callable[[StubWorker, Context], Awaitable[None]] | None" = None
    asked: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    entries: list = field(default_factory=list)
    _server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        process = grpc.stream_stream_rpc_method_handler(
            self._process,
            request_deserializer=wire.ProcessingRequest.FromString,
            response_serializer=wire.ProcessingResponse.SerializeToString,
        )
        logs = grpc.stream_unary_rpc_method_handler(
            self._logs,
            request_deserializer=als_pb2.StreamAccessLogsMessage.FromString,
            response_serializer=als_pb2.StreamAccessLogsResponse.SerializeToString,
        )
        handlers = (
            ("envoy.service.ext_proc.v3.ExternalProcessor", {"Process": process}),
            ("envoy.service.accesslog.v3.AccessLogService", {"StreamAccessLogs": logs}),
        )
        for service, methods in handlers:
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        self._server.add_insecure_port(f"unix:{self.socket}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace=None)

    async def _process(self, _: object, context: Context) -> None:
        await (self.behaviour or decide)(self, context)

    async def _logs(self, messages, _: Context) -> als_pb2.StreamAccessLogsResponse:
        async for message in messages:
            self.entries.extend(message.http_logs.log_entry)
        return als_pb2.StreamAccessLogsResponse()


async def decide(worker: StubWorker, context: Context) -> None:
    """Let the headers pass, decide on the body (on the headers if there is none), and return."""
    if await let_headers_pass(worker, context):
        await context.write(decision(worker, "request_headers"))
        return
    message = await context.read()
    worker.bodies.append(message.request_body.body)
    await context.write(decision(worker, "request_body"))


async def let_headers_pass(worker: StubWorker, context: Context) -> bool:
    """Take the headers; answer them unless they end the request. Returns whether they do."""
    message = await context.read()
    headers = message.request_headers
    worker.asked.append({h.key: h.raw_value.decode() for h in headers.headers.headers})
    if not headers.end_of_stream:
        await context.write(wire.ProcessingResponse(request_headers=wire.HeadersResponse()))
    return headers.end_of_stream


async def leave_to_watch(worker: StubWorker, context: Context) -> None:
    """Leave the decision to the filter that ends a request if its worker is lost."""
    await let_headers_pass(worker, context)
    await context.read()
    answer = wire.ProcessingResponse()
    option = answer.request_body.response.header_mutation.set_headers.add()
    option.header.key, option.header.raw_value = "x-kvoy-watch", b"1"
    await context.write(answer)


def decision(
    worker: StubWorker, phase: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> wire.ProcessingResponse:
    """Cluster header, endpoint list, and the metadata that names the worker."""
    answer = wire.ProcessingResponse()
    common = getattr(answer, phase).response
    for key, value in {"x-kvoy-cluster": worker.cluster, **(headers or {})}.items():
        option = common.header_mutation.set_headers.add()
        option.header.key, option.header.raw_value = key, value.encode()
    if body is not None:
        common.body_mutation.body = body
    answer.dynamic_metadata.update(
        {
            "envoy.lb": {"x-gateway-destination-endpoint": worker.endpoints},
            "kvoy": {"worker": worker.name, "instance": "i-1", "reservation": "r-1"},
        }
    )
    if worker.told:
        answer.dynamic_metadata["kvoy"]["decision"] = worker.told
    return answer


def more_time(seconds: float) -> wire.ProcessingResponse:
    """Asks Envoy to wait for so long."""
    answer = wire.ProcessingResponse()
    answer.override_message_timeout.FromMicroseconds(int(seconds * 1e6))
    return answer


def immediate(status: int, body: bytes, headers: dict[str, str]) -> wire.ProcessingResponse:
    """Ends the request."""
    answer = wire.ProcessingResponse()
    answer.immediate_response.status.code = status
    answer.immediate_response.body = body
    for key, value in headers.items():
        option = answer.immediate_response.headers.set_headers.add()
        option.header.key, option.header.raw_value = key, value.encode()
    return answer


async def die_on_body(worker: StubWorker, context: Context) -> None:
    """The process is gone in the middle of an exchange, as by ``kill -9``."""
    await let_headers_pass(worker, context)
    await context.read()
    os.kill(os.getpid(), signal.SIGKILL)


async def die_after_asking_for_time(worker: StubWorker, context: Context) -> None:
    """The process is gone while Envoy waits for a decision that takes long."""
    await let_headers_pass(worker, context)
    await context.read()
    await context.write(more_time(30))
    os.kill(os.getpid(), signal.SIGKILL)


async def _main(socket: str, name: str, cluster: str, endpoints: str, behaviour: str) -> None:
    worker = StubWorker(name, socket, cluster, endpoints, behaviour=globals()[behaviour])
    await worker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:6]))
