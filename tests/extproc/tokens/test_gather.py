import asyncio
import logging
import re
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

import aiohttp
import msgspec
import pytest

from benchmarks.engine import EngineSettings, running
from benchmarks.engine.tokens import encode
from extproc.tokens import Found, Miss, Tokens
from extproc.tokens.gather import IN_FLIGHT, KEPT_S
from extproc.tokens.model import Model
from extproc.tokens.question import Parts, Question

LONG_S = 20.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def opened():
    @asynccontextmanager
    async def open_tokens(directory, clock=time.monotonic):
        async with aiohttp.ClientSession() as http, Tokens(directory, http, clock, datetime.now) as tokens:
            yield tokens

    return open_tokens


@pytest.fixture
def held(monkeypatch):
    """Encoding waits until this is set; `held.encoded` counts it."""
    gate = threading.Event()
    gate.encoded = 0
    original = Model.encode

    def encode_later(self, texts, turn):
        gate.encoded += 1
        assert gate.wait(LONG_S)
        return original(self, texts, turn)

    monkeypatch.setattr(Model, "encode", encode_later)
    yield gate
    gate.set()


async def test_ids_of_the_client_come_first(opened, completion):
    async with opened(None) as tokens:
        found = await tokens.ids(completion([1, 2]), 0.0)

    assert isinstance(found, Found)
    assert (found.source, found.ids) == ("prompt", b"\1\0\0\0\2\0\0\0")


async def test_then_those_of_the_tokenizer_here(opened, write, chat, kinds, unpacked):
    async with opened(write()) as tokens:
        found = await tokens.ids(chat("the quick brown fox", engines=("http://127.0.0.1:1",)), LONG_S)

    text = "<|im_start|>user\nthe quick brown fox<|im_end|>\n<|im_start|>assistant\n"
    assert isinstance(found, Found)
    assert found.source == "local"
    assert unpacked(found.ids) == kinds("llama 3").encode(text).ids
    assert found.seconds > 0


async def test_then_those_of_an_engine(opened, write, completion, unpacked):
    async with running(EngineSettings(name="pod-a", model="tiny")) as engine:
        question = completion("abcdefgh", tokenizer="other", engines=(engine.url,))
        for directory in (None, write()):
            async with opened(directory) as tokens:
                found = await tokens.ids(question, LONG_S)
                assert isinstance(found, Found)
                assert (found.source, unpacked(found.ids)) == ("engine", encode("abcdefgh").tolist())


async def test_no_engine_is_shown_an_image(opened, chat):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    async with running(EngineSettings(name="pod-a", model="tiny")) as engine, opened(None) as tokens:
        missed = await tokens.ids(
            chat([{"type": "text", "text": "a"}, picture], engines=(engine.url,)), LONG_S
        )

        assert isinstance(missed, Miss)
        assert missed.reason == "the prompt has images or other media"
        assert not list(engine.requests)


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ({"tokenizer": "other"}, "there is no tokenizer for other in .*, and there is no engine to ask"),
        (
            {"tokenizer": "other", "engines": ("http://127.0.0.1:1",)},
            "there is no tokenizer for other in .*, and no engine told its tokens",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "the prompt has images or other media",
        ),
        ({"messages": 7}, "`messages` is malformed"),
        ({"chat_template": "x"}, "the request brings its own chat template, and there is no engine to ask"),
        ({"truncate_prompt_tokens": 1}, "the request truncates its prompt"),
    ],
)
async def test_or_why_there_are_none(opened, write, chat, question, why):
    async with opened(write()) as tokens:
        missed = await tokens.ids(chat("secret", **question), LONG_S)

    assert isinstance(missed, Miss)
    assert re.fullmatch(why, missed.reason)


async def test_without_a_directory_the_reason_says_so(opened, chat):
    async with opened(None) as tokens:
        await tokens.prepare(["tiny"])
        assert await tokens.ids(chat("a"), 1) == Miss(
            "no directory of tokenizers is given, and there is no engine to ask"
        )


async def test_what_takes_too_long_goes_on_and_is_there_the_next_time(opened, write, chat, held):
    async with opened(write()) as tokens:
        question = chat("the quick brown fox")
        assert await tokens.ids(question, 0.02) == Miss("tokenising took longer than 20 ms")
        assert await tokens.ids(question, 0.0) == Miss("tokenising took longer than 0 ms")
        held.set()

        assert isinstance(await tokens.ids(question, LONG_S), Found)
    assert held.encoded == 1


async def test_a_prompt_that_is_known_needs_no_work(opened, write, chat, held):
    held.set()
    clock = Clock()
    async with opened(write(), clock) as tokens:
        first = await tokens.ids(chat("hi"), LONG_S)
        held.clear()
        assert await tokens.ids(replace(chat("hi"), engines=("http://other",)), 0.0) == first

        clock.now += KEPT_S
        assert isinstance(await tokens.ids(chat("hi"), 0.0), Miss)
        held.set()


async def test_equal_prompts_at_once_are_tokenised_once(opened, write, chat, held):
    async with opened(write()) as tokens, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(tokens.ids(chat("hi"), LONG_S)) for _ in range(20)]
        await asyncio.sleep(0.05)
        held.set()
        found = {(await task).ids for task in asked}
    assert len(found) == 1
    assert held.encoded == 1


async def test_too_many_at_once_are_a_miss(opened, write, chat, held):
    async with opened(write()) as tokens:
        for at in range(IN_FLIGHT):
            assert "longer than" in (await tokens.ids(chat(f"prompt {at}"), 0.0)).reason

        assert await tokens.ids(chat("one more"), LONG_S) == Miss("8 other prompts are being tokenised")
        held.set()
        assert isinstance(await tokens.ids(chat("prompt 0"), LONG_S), Found)


async def test_a_caller_that_gives_up_stops_no_other(opened, write, chat, held):
    async with opened(write()) as tokens, asyncio.TaskGroup() as tasks:
        gone = tasks.create_task(tokens.ids(chat("hi"), LONG_S))
        stays = tasks.create_task(tokens.ids(chat("hi"), LONG_S))
        await asyncio.sleep(0.02)
        gone.cancel()
        held.set()
        assert isinstance(await stays, Found)


async def test_closing_waits_for_no_prompt(opened, write, chat, held):
    async with opened(write()) as tokens:
        await tokens.ids(chat("hi"), 0.0)
    assert held.encoded <= 1


async def test_a_failure_is_a_miss_logged_once_without_the_prompt(opened, write, chat, monkeypatch, caplog):
    def fail(*_):
        raise ValueError("secret")

    async with opened(write()) as tokens:
        await tokens.prepare(["tiny"])
        monkeypatch.setattr(Model, "encode", fail)
        for at in range(3):
            missed = await tokens.ids(chat(f"secret {at}"), LONG_S)
            assert missed == Miss("tokenising failed (RuntimeError)")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "secret" not in caplog.text


async def test_half_a_character_is_a_miss(opened, write):
    parts = Parts(messages=msgspec.Raw(b'[{"role": "user", "content": "\\ud800"}]'))
    async with opened(write()) as tokens:
        missed = await tokens.ids(Question("chat", parts, "m", "tiny"), LONG_S)
    assert missed == Miss("`messages` is malformed")


async def test_tokenizers_are_read_beforehand(opened, write, chat, held, caplog):
    caplog.set_level(logging.INFO, "kvoy.tokens")
    async with opened(write()) as tokens:
        await tokens.prepare(["tiny", "other"])

    assert "tokenizer tiny read from" in caplog.text
    assert "there is no tokenizer for other" in caplog.text


async def test_a_changed_tokenizer_is_used_in_the_end(opened, write, chat):
    clock = Clock()
    async with opened(write(), clock) as tokens:
        first = await tokens.ids(chat("hi 12345"), LONG_S)
        write(kind="gpt 2")
        clock.now += KEPT_S
        second = await tokens.ids(chat("hi 12345"), LONG_S)

    assert isinstance(first, Found)
    assert isinstance(second, Found)
    assert first.ids != second.ids


async def test_the_event_loop_runs_while_a_long_prompt_is_encoded(opened, write, completion):
    """No timing is asserted: only that the loop was served many times meanwhile."""
    async with opened(write()) as tokens, asyncio.TaskGroup() as tasks:
        await tokens.prepare(["tiny"])
        text = "".join(f"{at} some different words " for at in range(15_000))
        task = tasks.create_task(tokens.ids(completion(text), LONG_S))
        rounds = 0
        while not task.done():
            await asyncio.sleep(0)
            rounds += 1
        assert isinstance(await task, Found)
    assert rounds > 20
