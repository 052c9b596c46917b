"""Real worker processes over a real Valkey, and how Envoy speaks to them."""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2
from grpc import aio

from benchmarks.replicas.pods import Served
from benchmarks.valkey import valkey
from extproc.reservations import SILENCE_S
from extproc.state.envoy import (
    CACHED_TOKENS_KEY,
    COMPLETION_TOKENS_KEY,
    DESTINATION,
    KVOY_NAMESPACE,
    LB_NAMESPACE,
    PROMPT_TOKENS_KEY,
    USAGE_NAMESPACE,
)
from extproc.state.records import Publication, Put, Record
from extproc.state.store import Store
from extproc.supervise import claim_addresses, python, tethered

_PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
_LOG = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
_START_S = 60.0

Request = external_processor_pb2.ProcessingRequest
Response = external_processor_pb2.ProcessingResponse


@dataclass(frozen=True, slots=True)
class Placed:
    """What a worker answered."""

    addresses: tuple[str, ...]
    """Best first."""
    stamp: Any
    """The metadata that the access-log entry brings back."""


class Refused(Exception):
    """A worker answered the request itself."""


class Worker:
    """One worker, as Envoy sees it."""

    def __init__(self, name: str, socket: str, admin: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.admin = admin
        self.process = process
        self._channel = aio.insecure_channel(f"unix:{socket}")
        self._process = self._channel.stream_stream(_PROCESS)
        self._log: Any = None
        self._turn = asyncio.Lock()
        """A stream takes one message at a time."""

    async def place(self, model: str, messages: bytes, request_id: str = "") -> Placed:
        """One chat request through ext_proc. Raises `Refused`."""
        body = b'{"model":%b,"stream":true,"messages":%b}' % (json.dumps(model).encode(), messages)
        pairs = [
            (":method", b"POST"), (":path", b"/v1/chat/completions"), ("x-request-id", request_id.encode())
        ]  # fmt: skip
        headers = [{"key": key, "raw_value": value} for key, value in pairs]
        call = self._process()
        await call.write(Request(request_headers={"headers": {"headers": headers}}).SerializeToString())
        await call.read()
        await call.write(Request(request_body={"body": body, "end_of_stream": True}).SerializeToString())
        answer = Response.FromString(await call.read())
        if answer.WhichOneof("response") == "immediate_response":
            raise Refused(answer.immediate_response.body.decode())
        fields = answer.dynamic_metadata.fields
        destinations = fields[LB_NAMESPACE].struct_value.fields[DESTINATION].string_value
        return Placed(tuple(destinations.split(",")), fields[KVOY_NAMESPACE].struct_value)

    async def report(self, placed: Placed, served: Served | None, completion_tokens: int) -> None:
        """The access-log entry of a request: served as told, or ended with a 503."""
        message = als_pb2.StreamAccessLogsMessage()
        entry = message.http_logs.log_entry.add()
        common = entry.common_properties
        common.metadata.filter_metadata[KVOY_NAMESPACE].CopyFrom(placed.stamp)
        host, _, port = placed.addresses[0].rpartition(":")
        common.upstream_remote_address.socket_address.address = host
        common.upstream_remote_address.socket_address.port_value = int(port)
        entry.response.response_code.value = 503 if served is None else 200
        if served is not None:
            common.time_to_first_upstream_rx_byte.FromNanoseconds(int(served.ttft_s * 1e9))
            usage = common.metadata.filter_metadata[USAGE_NAMESPACE].fields
            usage[PROMPT_TOKENS_KEY].number_value = served.prompt_tokens
            usage[COMPLETION_TOKENS_KEY].number_value = completion_tokens
            usage[CACHED_TOKENS_KEY].number_value = served.cached_tokens
        async with self._turn:
            if self._log is None:
                self._log = self._channel.stream_unary(_LOG)()
            await self._log.write(message.SerializeToString())

    async def get(self, path: str) -> Any:
        """JSON from the admin endpoint."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.admin}{path}") as response:
            return await response.json()

    async def close(self) -> None:
        """End the streams."""
        if self._log is not None:
            await self._log.done_writing()
        await self._channel.close()


class Group:
    """A Valkey and workers on it."""

    def __init__(self, folder: Path, redis: str, resources: AsyncExitStack) -> None:
        self._folder = folder
        self._resources = resources
        self._redis = redis
        self.store = Store.connect(self._redis, "bench")
        self._generation = 0
        self.workers: list[Worker] = []

    async def publish(self, records: Sequence[Record]) -> None:
        """Make these records the whole configuration, and wait until every worker runs it."""
        self._generation += 1
        changes = tuple(Put(record) for record in records)
        publication = Publication(f"epoch-{self._generation}", self._generation, changes, whole=True)
        assert await self.store.configuration.publish(publication)
        for worker in self.workers:
            while (await worker.get("/debug/state"))["generation"] != self._generation:
                await asyncio.sleep(0.01)

    async def start(self, count: int) -> None:
        """Start all workers, once and after the first `publish`; a process that speaks gRPC must not fork."""
        started = [await self._spawn(at) for at in range(count)]
        deadline = time.monotonic() + _START_S
        for name, socket, _, _ in started:
            while not Path(socket).exists():
                if time.monotonic() > deadline:
                    log = (self._folder / f"{name}.log").read_text()
                    raise TimeoutError(f"{name} did not start:\n{log}")
                await asyncio.sleep(0.02)
        self.workers = [Worker(*each) for each in started]
        for worker in self.workers:
            self._resources.push_async_callback(worker.close)

    async def keep(self, count: int) -> None:
        """Stop all workers but the first ones, and wait until those have noticed."""
        gone, self.workers = self.workers[count:], self.workers[:count]
        for worker in gone:
            await _stop(worker.process)
        if gone:
            await asyncio.sleep(SILENCE_S + 1.0)

    async def _spawn(self, at: int) -> tuple[str, str, str, asyncio.subprocess.Process]:
        """Name, socket and admin address of a worker that is coming up, and the worker."""
        name = f"extproc-{at}"
        socket = f"{self._folder}/{at}.sock"
        (admin,) = claim_addresses("127.0.0.1:0", 1)
        with (self._folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *tethered(
                    python(
                        *("-m", "extproc", "--name", name, "--socket", socket, "--admin", admin),
                        *("--redis", self._redis, "--group", "bench"),
                    )
                ),
                stdout=log,
                stderr=log,
            )
        self._resources.push_async_callback(_stop, process)
        return name, socket, admin, process


@asynccontextmanager
async def group() -> AsyncIterator[Group]:
    """A Valkey of its own, without workers yet; everything ends with the block."""
    folder = Path(tempfile.mkdtemp(prefix="kvoy-rep-", dir="/tmp"))
    try:
        async with AsyncExitStack() as resources:
            found = Group(folder, resources.enter_context(valkey()), resources)
            resources.push_async_callback(found.store.close)
            yield found
    finally:
        shutil.rmtree(folder)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.wait()
