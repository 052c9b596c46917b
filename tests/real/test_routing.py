"""`kvoy up` before real vLLMs: KVOY_REAL_VLLM=http://127.0.0.1:8100,http://127.0.0.1:8110.

They must serve the model ``tiny`` with KV events and --enable-prompt-tokens-details, and nobody else may use
them. KVOY_REAL_TOKENIZERS=DIR gives the workers the tokeniser in DIR/tiny; without it the engines are asked.
What was measured is printed: run with ``-s``.
"""

import asyncio
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.envoy.steering import cached, name, observed, scheduler
from tests.envoy.world import (
    World,
    a_model_route,
    a_model_server,
    a_pod_manifest,
    a_world,
    to,
    until,
)

URLS = [url for url in os.environ.get("KVOY_REAL_VLLM", "").split(",") if url]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(len(URLS) < 2, reason="KVOY_REAL_VLLM names no two running vLLMs"),
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]

VOCABULARY = (
    "once upon a time the cache kept every block of the story that a pod had read "
    "and told it again to whoever asked for it with the same beginning so nobody had to wait for long"
)
AT_ONCE = 3
"""Conversations that go on at the same time."""
THINKS_S = 0.6
"""Longest time that a client takes for its next question. Without any, a prompt is often placed while another
one with the same beginning is being computed, and then less is predicted than will be there."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    """All engines observed and their events followed, by both workers."""
    pods = [
        a_pod_manifest(f"real-{at}", "real", urlsplit(url).port or 8000, urlsplit(url).hostname or "")
        for at, url in enumerate(URLS)
    ]
    profile = scheduler("kvcache-aware", "least-request")
    tokenizers = os.environ.get("KVOY_REAL_TOKENIZERS")
    async with a_world(
        *(() if tokenizers is None else ("--tokenizers", tokenizers)),
        servers=[a_model_server("real", annotations=profile, model="tiny")],
        pods=pods,
        routes=[a_model_route("real", "real", to("real"))],
    ) as world:
        await observed(world, [f"real-{at}" for at in range(len(URLS))], kv_events=True)
        yield world


@dataclass(slots=True)
class Conversation:
    """Turns that build on each other, as a client sends them."""

    rng: random.Random
    system: str
    turns: int
    messages: list[dict[str, str]] = field(default_factory=list)

    def ask(self) -> list[dict[str, str]]:
        if not self.messages:
            self.messages.append({"role": "system", "content": self.system})
        question = text(self.rng, self.rng.choice((3, 10, 40, 150)))
        self.messages.append({"role": "user", "content": question})
        return self.messages

    def heard(self, answer: dict[str, Any]) -> None:
        content = answer["choices"][0]["message"]["content"] or ""
        self.messages.append({"role": "assistant", "content": content})


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(VOCABULARY.split(), k=words))


def conversations(rng: random.Random) -> list[Conversation]:
    """Of 4 turns each, on a few long and short system prompts that no engine has seen."""
    systems = [f"{uuid.UUID(int=rng.getrandbits(128))} {text(rng, words)}" for words in (5, 80, 300, 900)]
    return [Conversation(rng, rng.choice(systems), turns=4) for _ in range(32)]


def predicted(told: dict[str, Any]) -> int:
    return told["outcome"]["predicted_cached_tokens"]


def reported(told: dict[str, Any]) -> int:
    return told["outcome"]["cached_tokens"]


async def test_predictions_are_what_the_engines_report(world: World) -> None:
    rng = random.Random()
    gate = asyncio.Semaphore(AT_ONCE)
    asked: list[str] = []

    async def hold(conversation: Conversation) -> None:
        async with gate:
            for _ in range(conversation.turns):
                answer = await world.chat(
                    "real", messages=conversation.ask(), max_tokens=rng.choice((1, 12, 40)), temperature=0
                )
                assert answer.status == 200, answer.body
                asked.append(answer.headers["x-request-id"])
                conversation.heard(answer.json)
                await asyncio.sleep(rng.uniform(0, THINKS_S))

    async with asyncio.TaskGroup() as tasks:
        for conversation in conversations(rng):
            tasks.create_task(hold(conversation))
    await until(world.idle)
    told = [await world.explain(request_id) for request_id in asked]

    matched = Counter(one["cached_by"] for one in told)
    missed = [one for one in told if predicted(one) != reported(one)]
    for one in missed:
        print(f"{one['cached_by']}: {predicted(one)} predicted, {reported(one)} cached, {one['notes']}")
    lengths = sorted(one["outcome"]["prompt_tokens"] for one in told)
    print(f"{len(told) - len(missed)} of {len(told)} requests exactly as predicted, by {dict(matched)}")
    print(f"prompts of {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}")
    assert len(told) >= 100
    assert len(missed) <= 0.05 * len(told)
    assert sum(reported(one) > 0 for one in told) > len(told) / 2


async def test_events_reach_the_index_with_the_answer(world: World) -> None:
    taken: list[float] = []
    for _ in range(20):
        messages = [{"role": "user", "content": f"{uuid.uuid4()} {text(random.Random(), 200)}"}]
        answer = await world.chat("real", messages=messages, max_tokens=2)
        answered = time.monotonic()
        assert answer.status == 200, answer.body
        endpoint = name((await world.explain(answer.headers["x-request-id"]))["candidates"][0])
        async with asyncio.timeout(20):
            while any(one.get(endpoint, 0) < 200 for one in await cached(world, "real", messages)):
                pass
        taken.append(time.monotonic() - answered)
    taken.sort()
    print(f"from answer to index, as previews see it: median {taken[10]:.3f} s, at most {taken[-1]:.3f} s")
    assert taken[10] < 1
