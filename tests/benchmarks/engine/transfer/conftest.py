import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from benchmarks.engine import RunningEngine

CHAT = "/v1/chat/completions"
PROMPT = "tell me all about rivers, " * 40

Knobs = dict[str, object]
Send = Callable[..., Awaitable["Answer"]]


@dataclass(frozen=True)
class Answer:
    status: int
    text: str

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.text)

    @property
    def params(self) -> dict[str, object] | None:
        return self.json["kv_transfer_params"]

    @property
    def says(self) -> str:
        """Who answers."""
        return self.json["choices"][0]["message"]["content"].split()[0]

    @property
    def cached(self) -> int:
        return self.json["usage"]["prompt_tokens_details"]["cached_tokens"]

    @property
    def prompt_tokens(self) -> int:
        return self.json["usage"]["prompt_tokens"]


@pytest.fixture
def send(http: aiohttp.ClientSession) -> Send:
    """One request to an engine; fields with None are left out."""

    async def ask(
        engine: RunningEngine,
        request_id: str = "r1",
        path: str = CHAT,
        prompt: str = PROMPT,
        **fields: object,
    ) -> Answer:
        asked = {"messages": [{"role": "user", "content": prompt}]} if path == CHAT else {"prompt": prompt}
        body = {**asked, "max_tokens": 8, **fields}
        headers = {"x-request-id": request_id}
        async with http.post(f"{engine.url}{path}", json=body, headers=headers) as answer:
            return Answer(answer.status, await answer.text())

    return ask


@pytest.fixture
def prefill(send: Send) -> Send:
    """The prompt's leg of vLLM's connectors."""

    async def ask(engine: RunningEngine, request_id: str = "r1", *args: object, **fields: object) -> Answer:
        params = {"do_remote_decode": True, **fields.pop("params", {})}
        leg = {"max_tokens": 1, "kv_transfer_params": params}
        return await send(engine, request_id, *args, **{**leg, **fields})

    return ask


@pytest.fixture
def a_pair(start) -> Callable[..., Awaitable[tuple[RunningEngine, RunningEngine]]]:
    """A prefill and a decode engine; knobs are for both, but those of ``prefill`` and ``decode``."""

    async def begin(
        connector: str, prefill: Knobs | None = None, decode: Knobs | None = None, **knobs: object
    ) -> tuple[RunningEngine, RunningEngine]:
        both = {"connector": connector, "handshake_s": 0.0, "transfer_s_per_token": 0.0, **knobs}
        return (
            await start(**{"name": "prefiller", "role": "prefill", **both, **(prefill or {})}),
            await start(**{"name": "decoder", "role": "decode", **both, **(decode or {})}),
        )

    return begin


@pytest.fixture
def series(http: aiohttp.ClientSession) -> Callable[[RunningEngine, str], Awaitable[float]]:
    """The sum of the series of an engine whose name and labels begin so."""

    async def read(engine: RunningEngine, name: str) -> float:
        async with http.get(f"{engine.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)]
        assert found, name
        return sum(found)

    return read


@pytest.fixture
def in_flight() -> Callable[..., object]:
    """A request that is under way while the block runs, and whose client leaves at its end."""

    @asynccontextmanager
    async def hold(asked: Coroutine[object, object, Answer]) -> AsyncIterator[asyncio.Task[Answer]]:
        task = asyncio.get_running_loop().create_task(asked)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])

    return hold
