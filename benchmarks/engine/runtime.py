"""The asyncio layer over the batch: one timer for all prefills, one future per request.

Nothing happens per token in here but in `tokens`, and only for an answer that is streamed: the times of all
tokens follow from the first one.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.engine.batch import Batch, Job, Limits, Prefilled, QueueFullError
from benchmarks.engine.cache import BlockCache
from benchmarks.engine.metrics import EngineMetrics, Finished
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.tokens import Tokens

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Work:
    """One prompt and its answer, as a request asks for them."""

    prompt: Tokens
    output: Tokens
    """Empty for an embedding: the work ends with its prefill."""
    reason: str
    """Why the answer ends: ``stop`` or ``length``."""
    max_tokens: int
    adapter: str | None = None
    salt: str | None = None


@dataclass(slots=True)
class Run:
    """One piece of work inside the engine."""

    id: int
    work: Work
    n: int
    """Pieces of work that the request asked for per prompt."""
    prefilled: asyncio.Future[Prefilled] = field(repr=False)
    sent: int = 0
    """Tokens of the answer that exist."""
    ended: bool = False


class Runtime:
    """Runs work on a batch in real time."""

    def __init__(self, settings: EngineSettings, clock: Clock, wall: Clock) -> None:
        limits = Limits(
            settings.max_running, settings.max_waiting, settings.max_loras, settings.prefill_tokens_per_s
        )
        self.batch = Batch(limits, BlockCache(settings.num_blocks, settings.block_size))
        self.metrics = EngineMetrics(settings, self.batch, wall)
        self._inter_token_s = settings.inter_token_s
        self._clock = clock
        self._ids = itertools.count()
        self._runs: dict[int, Run] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._adapters_seen: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    @contextmanager
    def enter(self, works: Sequence[Work], n: int = 1) -> Iterator[list[Run]]:
        """Put all of a request's work in the batch; on the way out, abort what has not ended.

        QueueFullError if not all of it finds a place.
        """
        runs: list[Run] = []
        try:
            for work in works:
                runs.append(self._submit(work, n))
            yield runs
        finally:
            for run in runs:
                self._abort(run)

    async def tokens(self, run: Run) -> AsyncGenerator[Tokens, None]:
        """The answer as it comes into being: one token at a time, several if the reader fell behind."""
        output = run.work.output
        first = (await run.prefilled).at
        last = first
        while run.sent < len(output):
            now = await self._reach(first + run.sent * self._inter_token_s)
            due = self._due(now - first, len(output))
            burst = output[run.sent : max(due, run.sent + 1)]
            self._count(run, len(burst), now - last)
            last = now
            yield burst
        self._finish(run)

    async def wait(self, run: Run, stop_after: int | None = None) -> None:
        """Let the whole answer come into being, or only its first ``stop_after`` tokens."""
        output = run.work.output
        first = (await run.prefilled).at
        wanted = len(output) if stop_after is None else min(stop_after, len(output))
        if wanted > 1:
            await self._reach(first + (wanted - 1) * self._inter_token_s)
        if wanted > run.sent:
            self._count(run, wanted - run.sent, (wanted - max(run.sent, 1)) * self._inter_token_s)
        if wanted == len(output):
            self._finish(run)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _submit(self, work: Work, n: int) -> Run:
        run = Run(next(self._ids), work, n, asyncio.get_running_loop().create_future())
        self._runs[run.id] = run
        try:
            job = Job(run.id, work.prompt, work.output, work.adapter, work.salt)
            self.batch.submit(job, self._clock())
        except QueueFullError:
            del self._runs[run.id]
            self.metrics.rejected()
            raise
        self._settle()
        return run

    async def _reach(self, due: float) -> float:
        """Sleep until ``due``; returns the time then."""
        now = self._clock()
        if due > now:
            await asyncio.sleep(due - now)
            now = self._clock()
        return now

    def _due(self, elapsed: float, length: int) -> int:
        if self._inter_token_s == 0:
            return length
        return min(length, int(elapsed / self._inter_token_s) + 1)

    def _count(self, run: Run, tokens: int, elapsed: float) -> None:
        if run.sent == 0:
            prefilled = run.prefilled.result()
            self.metrics.first_token(prefilled.at - prefilled.arrived)
            tokens -= 1
            run.sent = 1
        if tokens:
            self.metrics.tokens(tokens, elapsed)
            run.sent += tokens

    def _finish(self, run: Run) -> None:
        if run.ended:
            return
        now = self._leave(run)
        self.metrics.finished(
            Finished(run.prefilled.result(), now, run.work.reason, run.n, run.work.max_tokens)
        )

    def _abort(self, run: Run) -> None:
        if not run.ended:
            run.prefilled.cancel()
            self._leave(run)

    def _leave(self, run: Run) -> float:
        run.ended = True
        del self._runs[run.id]
        now = self._clock()
        self.batch.leave(run.id, now, run.sent)
        self._settle()
        return now

    def _settle(self) -> None:
        """Tell runs whose prompt is computed, and set the timer for the next one."""
        for prefilled in self.batch.advance(self._clock()):
            self.metrics.prompt_computed(len(prefilled.job.prompt), prefilled.cached)
            run = self._runs.get(prefilled.job.id)
            if run is not None and not run.prefilled.done():
                run.prefilled.set_result(prefilled)
        adapters = (self.batch.running_adapters, self.batch.waiting_adapters)
        if adapters != self._adapters_seen:
            self._adapters_seen = adapters
            self.metrics.adapters(*adapters)
        self.close()
        if self.batch.next_at is not None:
            delay = max(0.0, self.batch.next_at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._settle)
