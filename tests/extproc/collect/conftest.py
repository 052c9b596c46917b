"""Engines that are nothing but their HTTP answers, and what is needed to watch them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from extproc.collect.sites import Site
from extproc.state.records import ModelServer
from extproc.state.snapshot import Endpoint

CAPTURES = Path(__file__).parent / "captures"


class Pod:
    """Answers as told; `asked` are the paths that were asked for, in order."""

    def __init__(self) -> None:
        self.answers: dict[str, str | bytes | int] = {"/metrics": (CAPTURES / "metrics_idle.txt").read_text()}
        """Path to body, or to a status without one; any other is 404."""
        self.delay_s = 0.0
        self.asked: list[str] = []
        self.address = ""
        self._runner: web.AppRunner | None = None

    def lists(self, *adapters: str) -> None:
        """Serves these LoRA adapters."""
        models = [{"id": "tiny", "parent": None}, *({"id": name, "parent": "tiny"} for name in adapters)]
        self.answers["/v1/models"] = json.dumps({"data": models})

    async def start(self, ssl: object = None, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=ssl).start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        await asyncio.sleep(self.delay_s)
        answer = self.answers.get(request.path, 404)
        if isinstance(answer, int):
            return web.Response(status=answer)
        return web.Response(body=answer)


@pytest.fixture
async def start_pod() -> AsyncIterator[Callable[[], Awaitable[Pod]]]:
    """Starts pods that are stopped in the end."""
    async with AsyncExitStack() as stack:

        async def start(ssl: object = None) -> Pod:
            pod = Pod()
            await pod.start(ssl)
            stack.push_async_callback(pod.stop)
            return pod

        yield start


@pytest.fixture
async def pod(start_pod: Callable[[], Awaitable[Pod]]) -> Pod:
    """A running vLLM with nothing to do."""
    return await start_pod()


@pytest.fixture
def site_of() -> Callable[..., Site]:
    """The site of a pod at an address."""

    def site(address: str, name: str = "a", ranks: int = 1, **server: object) -> Site:
        key = f"pod/default/{name}"
        numbers = range(ranks) if ranks > 1 else (None,)
        return Site(
            key,
            address,
            ModelServer("default", "s", "vLLM", 8000, ranks=ranks, **server),
            tuple(Endpoint.of(key, address, rank) for rank in numbers),
        )

    return site


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def capture() -> Callable[[str], str]:
    """The text of a captured exposition, by the middle of its name."""
    return lambda name: (CAPTURES / f"metrics_{name}.txt").read_text()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Waits until a condition (or an awaitable one) holds, 20 s at most."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not (holds := condition()) or (asyncio.iscoroutine(holds) and not await holds):
                await asyncio.sleep(0.01)

    return wait
