"""Prompt -> token ids, with a tokeniser of this machine."""

import json
import time
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Literal

import aiohttp
import msgspec
import uvloop

from benchmarks.schedule.apart import Line
from benchmarks.schedule.report import TokenisingRow, quantile
from extproc.tokens import Found, Parts, Question, Tokens

_WITHIN_S = 30.0
_WORDS = "the a cache of one engine holds what many requests share, so send them there; it costs 12345 less\n"


def tokenising(_line: Line, tokenizer: Path, sizes: tuple[int, ...], count: int) -> list[TokenisingRow]:
    """Prompts of these sizes in bytes: each new at first, then with another end."""
    return uvloop.run(_tokenising(tokenizer, sizes, count))


async def _tokenising(tokenizer: Path, sizes: tuple[int, ...], count: int) -> list[TokenisingRow]:
    rng = Random(1)
    found = []
    async with AsyncExitStack() as resources:
        http = await resources.enter_async_context(aiohttp.ClientSession())
        tokens = await resources.enter_async_context(
            Tokens(tokenizer.parent, http, time.monotonic, datetime.now)
        )
        await tokens.prepare([tokenizer.name])
        for size in sizes:
            new, known = [], []
            for _ in range(count):
                text = _text(size, rng)
                new.append(await _asked(tokens, tokenizer.name, text))
                known.append(await _asked(tokens, tokenizer.name, f"{text} {rng.random()}"))
            found += [_row(size, "new", new), _row(size, "known", known)]
    return found


async def _asked(tokens: Tokens, name: str, text: str) -> tuple[float, int]:
    parts = Parts(prompt=msgspec.Raw(json.dumps(text).encode()))
    began = time.perf_counter()
    told = await tokens.ids(Question("completion", parts, name, name), _WITHIN_S)
    took = time.perf_counter() - began
    assert isinstance(told, Found), told
    return took, len(told.ids) // 4


def _row(size: int, beginning: Literal["new", "known"], asked: list[tuple[float, int]]) -> TokenisingRow:
    times = [took for took, _ in asked]
    p50, p99 = (round(quantile(times, q) * 1e6) for q in (0.5, 0.99))
    return TokenisingRow(size, asked[0][1], beginning, p50, p99)


def _text(size: int, rng: Random) -> str:
    words = _WORDS.split(" ")
    return " ".join(rng.choice(words) for _ in range(size // 4))[:size]
