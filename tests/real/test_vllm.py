"""kvoy against a real vLLM, 0.32 or later, that publishes KV events: KVOY_REAL_VLLM=http://127.0.0.1:8100.

It must have the model ``tiny`` and its LoRA adapter ``lora-a`` and be in development mode, so that its cache
can be reset; nobody else may use it.
"""

import asyncio
import os
import time
import uuid
from struct import pack
from urllib.parse import urlsplit

import aiohttp
import pytest

from extproc.cache import frames
from extproc.cache.chain import kv_chain, kv_root
from extproc.cache.frames import Operation
from extproc.collect.kv.feed import KvFeed
from extproc.collect.kv.sockets import Sockets
from extproc.collect.kv.target import Target

URL = os.environ.get("KVOY_REAL_VLLM", "").split(",")[0]
SECRET = b"a secret"

pytestmark = [pytest.mark.real, pytest.mark.skipif(not URL, reason="KVOY_REAL_VLLM names no running vLLM")]


class Engine:
    """The engine, and what its feed says that it holds."""

    def __init__(self, http, feed_of):
        self._http = http
        self.held = set()
        self.heard_at = 0.0
        self.feed = feed_of(self._publish)

    def _publish(self, raw):
        self.heard_at = time.monotonic()
        for frame in frames.unpack(raw):
            match frame.operation:
                case Operation.ADD:
                    self.held |= set(frame.numbers())
                case Operation.REMOVE:
                    self.held -= set(frame.numbers())
                case Operation.CLEAR:
                    self.held = set()

    async def post(self, path, **body):
        async with self._http.post(URL + path, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json() if answer.content_length else None

    async def complete(self, prompt, model="tiny", **fields):
        return await self.post("/v1/completions", model=model, prompt=prompt, max_tokens=1, **fields)

    async def chain(self, prompt, adapter="", salt=""):
        """What a worker computes for the prompt."""
        ids = (await self.post("/tokenize", model="tiny", prompt=prompt))["tokens"]
        root = kv_root(adapter, salt, SECRET)
        return kv_chain(root, pack(f"<{len(ids)}I", *ids), self.feed.block_size)

    async def until(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, self.feed.counts
            await asyncio.sleep(0.005)


@pytest.fixture
async def engine():
    sockets = Sockets()
    async with aiohttp.ClientSession() as http:
        target = Target("pod/ns/real", 1, urlsplit(URL).hostname, URL, 0, "vLLM", None, SECRET)
        engine = Engine(http, lambda publish: KvFeed(target, publish, http, sockets, time.time))
        async with asyncio.TaskGroup() as tasks:
            feed = tasks.create_task(engine.feed.run())
            await engine.complete(prompt())
            await engine.until(lambda: engine.held)
            yield engine
            feed.cancel()
    sockets.close()


def prompt():
    """One that no one has sent before, of some 15 blocks."""
    return f"{uuid.uuid4()} " + "once upon a time there was a cache " * 60


async def test_a_prompts_blocks_are_known_by_the_names_that_workers_compute(engine):
    text = prompt()
    chain = await engine.chain(text)
    assert len(chain) > 5
    assert engine.held.isdisjoint(chain)

    await engine.complete(text)
    await engine.until(lambda: engine.held >= set(chain))


async def test_events_arrive_with_the_answer(engine):
    text = prompt()
    chain = await engine.chain(text)

    await engine.complete(text)
    answered_at = time.monotonic()
    await engine.until(lambda: engine.held >= set(chain))
    assert engine.heard_at - answered_at < 0.5


async def test_salts_and_adapters_keep_prompts_apart(engine):
    text = prompt()
    salted = await engine.chain(text, salt="tenant-7")
    adapted = await engine.chain(text, adapter="lora-a")
    both = await engine.chain(text, adapter="lora-a", salt="tenant-7")

    await engine.complete(text, cache_salt="tenant-7")
    await engine.until(lambda: engine.held >= set(salted))
    await engine.complete(text, model="lora-a")
    await engine.until(lambda: engine.held >= set(adapted))
    await engine.complete(text, model="lora-a", cache_salt="tenant-7")
    await engine.until(lambda: engine.held >= set(both))
    assert engine.held.isdisjoint(await engine.chain(text))


async def test_a_hit_is_what_the_engine_says_it_is(engine):
    text = prompt()
    known = await engine.chain(text)
    await engine.complete(text)
    await engine.until(lambda: engine.held >= set(known))
    longer = text + " and the cache was full" * 20
    chain = await engine.chain(longer)
    depth = sum(block in engine.held for block in chain)

    usage = (await engine.complete(longer))["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == depth * engine.feed.block_size


async def test_a_reset_is_followed(engine):
    text = prompt()
    chain = await engine.chain(text)
    await engine.complete(text)
    await engine.until(lambda: engine.held >= set(chain))

    await engine.post("/reset_prefix_cache")
    await engine.complete(prompt())
    await engine.until(lambda: engine.held.isdisjoint(chain))
    assert engine.held


async def test_a_feed_that_begins_later_learns_the_same(engine):
    await engine.complete(prompt())
    sockets, later = Sockets(), set()

    def publish(raw):
        for frame in frames.unpack(raw):
            match frame.operation:
                case Operation.ADD:
                    later.update(frame.numbers())
                case Operation.REMOVE:
                    later.difference_update(frame.numbers())
                case Operation.CLEAR:
                    later.clear()

    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        target = Target("pod/ns/later", 1, urlsplit(URL).hostname, URL, 0, "vLLM", None, SECRET)
        feed = tasks.create_task(KvFeed(target, publish, http, sockets, time.time).run())
        await engine.until(lambda: later == engine.held)
        feed.cancel()
    sockets.close()
