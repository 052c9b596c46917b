"""The whole data path in one test: a real Envoy, our ADS server, scripted workers and engines around it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from controller.up import binaries
from controller.xds.bootstrap import bootstrap
from controller.xds.plane import DataPlane
from controller.xds.resources import build
from controller.xds.server import Ads
from extproc.state.envoy import cluster_name
from extproc.state.records import ModelServer, Pod, Record
from tests.controller.xds.stub_engine import StubEngine
from tests.controller.xds.stub_worker import StubWorker

DEADLINE_S = 20.0


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition gives something true, and give that back."""
    for _ in range(int(DEADLINE_S / 0.02)):
        if found := condition():
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {DEADLINE_S} s: {what}")


@dataclass
class EnvoyProcess:
    """A running Envoy; its log is in `log`."""

    directory: Path
    process: asyncio.subprocess.Process
    admin: aiohttp.ClientSession
    log: Path

    async def get(self, path: str) -> str:
        async with self.admin.get(f"http://admin{path}") as answer:
            return await answer.text()

    async def stat(self, name: str) -> int:
        text = await self.get(f"/stats?filter=^{name}$")
        return int(text.rpartition(":")[2]) if text.strip() else 0

    async def port(self) -> int:
        """Of the public listener, once it is there."""
        for _ in range(int(DEADLINE_S / 0.05)):
            assert self.process.returncode is None, self.log.read_text()
            with suppress(aiohttp.ClientError):
                for line in (await self.get("/listeners")).splitlines():
                    return int(line.rpartition(":")[2])
            await asyncio.sleep(0.05)
        raise AssertionError(f"no listener within {DEADLINE_S} s: {self.log.read_text()}")


@asynccontextmanager
async def running_envoy(directory: Path, xds_socket: str) -> AsyncIterator[EnvoyProcess]:
    """Envoy started from our bootstrap; stopped at the end, by force if need be."""
    config, log, admin = directory / "envoy.json", directory / "envoy.log", directory / "admin.sock"
    config.write_text(bootstrap(xds_socket=xds_socket, node_id="test", admin=f"unix:{admin}"))
    options = (
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--log-level",
        "warning",
        "--log-path",
        str(log),
    )
    process = await asyncio.create_subprocess_exec(binaries.envoy(), *options, "-c", str(config))
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(admin))) as session:
            yield EnvoyProcess(directory, process, session, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass
class Mesh:
    """Everything that a test of the data path talks to."""

    directory: Path
    plane: DataPlane
    ads: Ads
    workers: list[StubWorker]
    engines: list[StubEngine]
    tasks: asyncio.TaskGroup
    envoy: EnvoyProcess = field(init=False)
    client: aiohttp.ClientSession = field(init=False)
    url: str = ""
    records: dict[str, Record] = field(default_factory=dict)
    _serving: asyncio.Task[None] = field(init=False)

    @property
    def server(self) -> ModelServer:
        return next(record for record in self.records.values() if isinstance(record, ModelServer))

    @property
    def xds_socket(self) -> str:
        return str(self.directory / "xds.sock")

    def start_ads(self) -> None:
        self._serving = self.tasks.create_task(self.ads.serve(self.xds_socket))

    async def stop_ads(self) -> None:
        self._serving.cancel()
        await asyncio.wait([self._serving])

    async def offer(self, *records: Record) -> None:
        """Serve exactly these records, and wait until Envoy takes them."""
        self.records = {record.key: record for record in records}
        self.ads.offer(build(self.records, self.plane))
        assert await self.ads.accepted(DEADLINE_S)

    def route_to(self, *addresses: str) -> None:
        """From now on every worker lists these addresses, in order, for the (first) ModelServer."""
        for worker in self.workers:
            worker.cluster = cluster_name(self.server.namespace, self.server.name)
            worker.endpoints = ",".join(addresses)

    def post(self, path: str = "/v1/chat/completions", **options: Any) -> Any:
        options.setdefault("json", {} if "data" not in options else None)
        return self.client.post(self.url + path, **options)

    async def ask(self, **options: Any) -> tuple[int, dict[str, str], bytes]:
        """Post and read the whole answer."""
        async with self.post(**options) as answer:
            return answer.status, dict(answer.headers), await answer.read()

    async def entries(self, count: int) -> list:
        """The access-log entries that all workers have, once there are `count`."""

        def gathered() -> list:
            return [entry for worker in self.workers for entry in worker.entries]

        await until(lambda: len(gathered()) >= count, f"{count} access-log entries")
        return gathered()


def pods(engines: Iterable[StubEngine], *, server: str = "s") -> list[Pod]:
    """One ready pod per engine."""
    return [Pod("ns", engine.name, "127.0.0.1", (server,), port=engine.port) for engine in engines]


@asynccontextmanager
async def running_mesh(
    directory: Path,
    *,
    server: ModelServer,
    engines: int = 1,
    workers: int = 1,
    body_limit: int = 16 * 2**20,
    decision_header: bool = False,
) -> AsyncIterator[Mesh]:
    """`engines` pods of one ModelServer behind Envoy, every request offered all of them in order."""
    stubs = [StubWorker(f"extproc-{i}", str(directory / f"w{i}.sock")) for i in range(workers)]
    plane = DataPlane("127.0.0.1:0", tuple((w.name, w.socket) for w in stubs), body_limit, decision_header)
    pods_of = [StubEngine(f"engine-{i}") for i in range(engines)]
    for part in (*stubs, *pods_of):
        await part.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            mesh = Mesh(directory, plane, Ads(), stubs, pods_of, tasks)
            mesh.start_ads()
            async with running_envoy(directory, mesh.xds_socket) as mesh.envoy:
                mesh.records = {record.key: record for record in (server, *pods(pods_of))}
                mesh.ads.offer(build(mesh.records, plane))
                mesh.url = f"http://127.0.0.1:{await mesh.envoy.port()}"
                assert await mesh.ads.accepted(DEADLINE_S), mesh.envoy.log.read_text()
                mesh.route_to(*(engine.address for engine in pods_of))
                async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as mesh.client:
                    yield mesh
            await mesh.stop_ads()
    finally:
        for part in (*stubs, *pods_of):
            await part.stop()
