"""Where token ids come from: the prompt itself, a cache, the tokeniser here, an engine."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import aiohttp

from extproc.tokens.directory import Directory
from extproc.tokens.given import own_ids, require_text
from extproc.tokens.local import Local
from extproc.tokens.lru import Lru
from extproc.tokens.question import Found, Miss, NotHere, Question, Untellable
from extproc.tokens.remote import Remote

log = logging.getLogger("kvoy.tokens")

IN_FLIGHT = 8
"""Prompts that are tokenised at once; more are answered with a `Miss`."""
CACHE_BYTES = 64 << 20
"""Token ids of pieces that are kept; a quarter more of whole prompts."""
KEPT_S = 60.0
"""How long a whole prompt's ids are kept: for bursts and retries, not long beyond a change of tokeniser."""


@dataclass(frozen=True, slots=True)
class _Told:
    ids: bytes
    source: Literal["local", "engine"]
    at: float


class Tokens:
    """Says the token ids of prompts, while it is open (``async with``)."""

    def __init__(
        self,
        directory: Path | None,
        http: aiohttp.ClientSession,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        """`directory` holds one directory per tokeniser; without it engines are asked. `now`: local time."""
        self._clock = clock
        self._local = None if directory is None else Local(Directory(directory, clock, now), CACHE_BYTES)
        self._remote = Remote(http, clock)
        self._kept: Lru[_Told] = Lru(CACHE_BYTES // 4)
        self._at_work: dict[bytes, asyncio.Task[_Told | Miss]] = {}
        self._tasks = asyncio.TaskGroup()
        self._threads = ThreadPoolExecutor(IN_FLIGHT, "tokens")
        self._failing = False

    async def __aenter__(self) -> Self:
        # With threads of its own the library lets a long prompt hold up short ones. It has no other switch.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._at_work.values():
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._tasks.__aexit__(kind, error, trace)

    async def prepare(self, tokenizers: Iterable[str]) -> None:
        """Read tokenisers now: at the first prompt it would hold up the event loop (see `files.load`)."""
        if self._local is None:
            return
        loop = asyncio.get_running_loop()
        for name in tokenizers:
            try:
                await loop.run_in_executor(self._threads, self._local.prepare, name)
            except NotHere as error:
                log.info("engines are asked for the tokens of %s: %s", name, error)

    async def ids(self, question: Question, within_s: float) -> Found | Miss:
        """The prompt's token ids, or why there are none after at most `within_s` seconds; never raises.

        What takes longer goes on, so that the same prompt finds it done.
        """
        began = self._clock()
        try:
            own = own_ids(question)
        except Untellable as error:
            return Miss(str(error))
        if own is not None:
            return Found(own, "prompt", self._clock() - began)
        told = await self._told(question, within_s)
        return told if isinstance(told, Miss) else Found(told.ids, told.source, self._clock() - began)

    async def _told(self, question: Question, within_s: float) -> _Told | Miss:
        key = question.digest()
        kept = self._kept.get(key)
        if kept is not None and self._clock() - kept.at < KEPT_S:
            return kept
        task = self._at_work.get(key)
        if task is None:
            if len(self._at_work) >= IN_FLIGHT:
                return Miss(f"{IN_FLIGHT} other prompts are being tokenised")
            task = self._at_work[key] = self._tasks.create_task(self._work(key, question))
            task.add_done_callback(lambda _: self._at_work.pop(key, None))
        await asyncio.wait((task,), timeout=within_s)
        if not task.done() or task.cancelled():
            return Miss(f"tokenising took longer than {within_s * 1000:.0f} ms")
        return task.result()

    async def _work(self, key: bytes, question: Question) -> _Told | Miss:
        try:
            told = await self._find(question)
        except Untellable as error:
            return Miss(str(error))
        except Exception as error:
            if not self._failing:  # the text of an error may hold that of the prompt
                log.error("tokenising failed for %s: %s", question.model, type(error).__name__)
            self._failing = True
            return Miss(f"tokenising failed ({type(error).__name__})")
        self._failing = False
        if isinstance(told, _Told):
            self._kept.put(key, told, len(told.ids))
        return told

    async def _find(self, question: Question) -> _Told | Miss:
        try:
            return _Told(await self._here(question), "local", self._clock())
        except NotHere as error:
            why_not_here = error
        if not question.engines:
            return Miss(f"{why_not_here}, and there is no engine to ask")
        require_text(question)
        try:
            return _Told(await self._remote.ids(question), "engine", self._clock())
        except NotHere as error:
            return Miss(f"{why_not_here}, and {error}")

    async def _here(self, question: Question) -> bytes:
        if self._local is None:
            raise NotHere("no directory of tokenizers is given")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._local.ids, question)
