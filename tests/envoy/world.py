"""What the end-to-end tests speak: engines, manifests, a running stack and its client."""

import asyncio
import base64
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.stack import Stack, kvoy_up
from extproc.supervise import claim

GROUP = "networking.serving.volcano.sh/v1alpha1"
WAIT_S = 20.0
JSON = {"content-type": "application/json"}
COLLECTORS_PATHS = ("/v1/models", "/is_sleeping", "/is_paused", "/kv_event_sources", "/server_info")


async def until(condition: Callable[[], Awaitable[bool]], *, within: float = WAIT_S) -> None:
    """Wait until an awaited condition holds; fails when it does not in time."""
    async with asyncio.timeout(within):
        while not await condition():
            await asyncio.sleep(0.02)


def free_port() -> int:
    (port,) = claim("127.0.0.1", 0)
    return port


@dataclass(slots=True)
class Engine:
    """A simulated engine in a process of its own."""

    name: str
    port: int
    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def faults(self, *faults: dict[str, Any]) -> None:
        """Put these faults in force instead of those before."""
        async with self.session.post(f"{self.url}/_engine/faults", json=list(faults)) as response:
            assert response.status == 200, await response.text()

    async def requests(self) -> list["Received"]:
        """What it has received, but for what the collector asks."""
        async with self.session.get(f"{self.url}/_engine/requests") as response:
            received = (await response.json())["requests"]
        return [Received.of(entry) for entry in received if entry["path"] not in COLLECTORS_PATHS]


@dataclass(frozen=True, slots=True)
class Received:
    """A request as an engine got it."""

    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, entry: dict[str, Any]) -> "Received":
        headers = {name.lower(): value for name, value in entry["headers"]}
        return cls(headers, base64.b64decode(entry["body_base64"]))


@asynccontextmanager
async def an_engine(name: str, *options: str, port: int = 0, scheme: str = "http") -> AsyncIterator[Engine]:
    """Run a simulated engine until the block ends."""
    port = port or free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.engine", "--name", name, "--port", str(port)), *options
    )
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        engine = Engine(name, port, process, session, scheme)

        async def healthy() -> bool:
            assert process.returncode is None, f"engine {name} ended at once"
            try:
                async with session.get(f"{engine.url}/health") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        try:
            await until(healthy)
            yield engine
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def engines(resources: AsyncExitStack, *wanted: tuple[str, ...]) -> list[Engine]:
    """Run an engine for each (name, option, …), in that order, until `resources` end; all start at once."""
    async with asyncio.TaskGroup() as tasks:
        starting = [tasks.create_task(resources.enter_async_context(an_engine(*each))) for each in wanted]
    return [task.result() for task in starting]


def a_model_route(
    name: str, model: str, *rules: dict[str, Any], loras: list[str] | None = None
) -> dict[str, Any]:
    spec: dict[str, Any] = {"modelName": model, "rules": list(rules)}
    if loras:
        spec["loraAdapters"] = loras
    return {"apiVersion": GROUP, "kind": "ModelRoute", "metadata": _meta(name), "spec": spec}


def to(*servers: str | tuple[str, int], **match: Any) -> dict[str, Any]:
    """A rule: ``to("a")``, ``to(("a", 70), ("b", 30))``, ``to("a", headers={...}, uri={...})``."""
    targets = [
        {"modelServerName": s} if isinstance(s, str) else {"modelServerName": s[0], "weight": s[1]}
        for s in servers
    ]
    return {"targetModels": targets, **({"modelMatch": match} if match else {})}


def a_model_server(
    name: str, *, protocol: str = "http", annotations: dict[str, str] | None = None, **spec: Any
):  # type: ignore[no-untyped-def]
    """A vLLM ModelServer that selects pods labelled ``app: <name>``."""
    return {
        "apiVersion": GROUP,
        "kind": "ModelServer",
        "metadata": {**_meta(name), "annotations": annotations or {}},
        "spec": {
            "inferenceEngine": "vLLM",
            "workloadSelector": {"matchLabels": {"app": name}},
            "workloadPort": {"port": 8000, "protocol": protocol},
            **spec,
        },
    }


def a_pod_manifest(name: str, app: str, port: int, ip: str = "127.0.0.1") -> dict[str, Any]:
    """A ready pod of a ModelServer at a port of its own."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**_meta(name), "labels": {"app": app}, "annotations": {"kvoy.io/port": str(port)}},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def _meta(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": "default"}


@dataclass(slots=True)
class Answer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes
    json: Any = None

    @property
    def served_by(self) -> str:
        return self.headers["x-engine-name"]

    @property
    def reason(self) -> str | None:
        return self.headers.get("x-kvoy-reason")

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}, "OpenAI's error shape"
        assert self.headers["content-type"].startswith("application/json")
        return error


@dataclass(slots=True)
class World:
    """A running stack, its manifests, and a client."""

    stack: Stack
    folder: Path
    session: aiohttp.ClientSession
    engines: dict[str, Engine] = field(default_factory=dict)

    def write(self, file: str, *objects: dict[str, Any]) -> None:
        """Replace a manifest file, atomically as an editor or kubelet does."""
        write_manifest(self.folder, file, *objects)

    @asynccontextmanager
    async def extra(self, *objects: dict[str, Any]) -> AsyncIterator[Callable[..., Awaitable[None]]]:
        """Objects beside the others for the length of a block; yields a function that replaces them."""

        async def apply(*objects: dict[str, Any]) -> None:
            before = await self.generation()
            self.write("extra.yaml", *objects)
            await self.settled(before)

        await apply(*objects)
        try:
            yield apply
        finally:
            before = await self.generation()
            (self.folder / "extra.yaml").unlink()
            await self.settled(before)

    async def send(
        self, path: str, body: Any = None, *, method: str = "POST", headers: dict[str, str] | None = None
    ) -> Answer:
        """One request; `body` is JSON unless it is bytes."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**JSON, **(headers or {})} if content else headers
        # aiohttp warns of large bytes, which it would send in one piece.
        data = io.BytesIO(content) if content else None
        async with self.session.request(method, self.stack.url + path, headers=sent, data=data) as response:
            raw = await response.read()
            lowered = {name.lower(): value for name, value in response.headers.items()}
            parsed = await response.json() if "json" in lowered.get("content-type", "") else None
            return Answer(response.status, lowered, raw, parsed)

    async def chat(self, model: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, **fields}
        return await self.send("/v1/chat/completions", body, headers=headers)

    async def served(self, times: int, model: str, **arguments: Any) -> Counter[str]:
        """Who serves `times` requests, all of which must succeed."""
        tally: Counter[str] = Counter()
        for _ in range(times):
            answer = await self.chat(model, **arguments)
            assert answer.status == 200, answer.body
            tally[answer.served_by] += 1
        return tally

    def workers(self, name: str) -> list[int]:
        """Pids of the worker of this name: one, or none while it is being restarted."""
        return [pid for pid, command in self.stack.processes().items() if f"--name {name} " in command]

    async def ready(self) -> bool:
        """Every worker takes requests."""
        try:
            for admin in self.stack.admins:
                async with self.session.get(f"{admin}/readyz") as response:
                    if response.status != 200:
                        return False
        except aiohttp.ClientError:
            return False
        return True

    async def restart_workers(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop every worker at once and wait for their successors."""
        names = [f"extproc-{at}" for at in range(len(self.stack.admins))]
        for name in names:
            await self.restart_worker(name, how, wait=name == names[-1])

    async def restart_worker(
        self, name: str, how: signal.Signals = signal.SIGTERM, *, wait: bool = True
    ) -> None:
        """Stop a worker and, unless told otherwise, wait until it and all others take requests."""
        (old,) = self.workers(name)
        os.kill(old, how)

        async def replaced() -> bool:
            return self.workers(name) not in ([], [old]) and await self.ready()

        if wait:
            await until(replaced)

    async def states(self) -> list[dict[str, Any]]:
        """The debug state of every worker that answers."""
        states = []
        for admin in self.stack.admins:
            try:
                async with self.session.get(f"{admin}/debug/state") as response:
                    states.append(await response.json())
            except aiohttp.ClientError:
                continue
        return states

    async def in_flight(self) -> int:
        """Requests in flight that the workers themselves hold."""
        return sum(requests(state["in_flight"]["own"]) for state in await self.states())

    async def idle(self) -> bool:
        """No worker holds or sees any request in flight."""
        states = await self.states()
        seen = sum(requests(state["in_flight"]["all"]) for state in states)
        return len(states) == len(self.stack.admins) and seen == 0 and await self.in_flight() == 0

    async def settled(self, generation_after: int) -> None:
        """Wait until every worker runs a later generation."""

        async def caught_up() -> bool:
            states = await self.states()
            return len(states) == len(self.stack.admins) and all(
                state["generation"] > generation_after for state in states
            )

        await until(caught_up)

    async def generation(self) -> int:
        return max(state["generation"] for state in await self.states())

    async def metric(self, name: str, **labels: str) -> float:
        """A counter or gauge, summed over the workers."""
        total = 0.0
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for admin in self.stack.admins:
            async with self.session.get(f"{admin}/metrics") as response:
                for line in (await response.text()).splitlines():
                    if line.split("{")[0].split(" ")[0] == name and all(label in line for label in wanted):
                        total += float(line.rpartition(" ")[2])
        return total

    async def explain(self, request_id: str) -> dict[str, Any]:
        """The decision on a request, from whichever worker made it."""
        for admin in self.stack.admins:
            async with self.session.get(f"{admin}/explain/{request_id}") as response:
                if response.status == 200:
                    told: dict[str, Any] = await response.json()
                    return told
        raise AssertionError(f"no worker decided on {request_id}")


def requests(loads: dict[str, dict[str, int]]) -> int:
    """Requests in flight, of all endpoints together."""
    return sum(load["requests"] for load in loads.values())


def write_manifest(folder: Path, file: str, *objects: dict[str, Any]) -> None:
    """Write objects into one YAML file by atomic rename."""
    fresh = folder / f".{file}.new"
    fresh.write_text(yaml.safe_dump_all(objects))
    fresh.rename(folder / file)


@asynccontextmanager
async def a_world(*options: str, **files: list[dict[str, Any]]) -> AsyncIterator[World]:
    """A stack over these manifest files (``routes=[…]`` becomes ``routes.yaml``)."""
    folder = Path(tempfile.mkdtemp(prefix="kvoy-e2e-"))
    try:
        for name, objects in files.items():
            write_manifest(folder, f"{name}.yaml", *objects)
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=60)
        async with (
            kvoy_up(folder, *options) as stack,
            aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**22) as session,
        ):
            yield World(stack, folder, session)
    finally:
        shutil.rmtree(folder)
