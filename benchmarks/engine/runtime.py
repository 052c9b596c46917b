"""The asyncio layer over the batch: one timer for all prefills, one future per request.

Nothing happens per token in here but in `tokens`, and only for an answer that is streamed: the times of all
tokens follow from the first one.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.engine.batch import Batch, Job, Limits, Prefilled, QueueFullError
from benchmarks.engine.cache import BlockCache
from benchmarks.engine.events import Event
from benchmarks.engine.families import Families
from benchmarks.engine.frontend import FrontendMetrics
from benchmarks.engine.metrics import Finished, RankMetrics
from benchmarks.engine.models import Adapter
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.tokens import Tokens

Clock = Callable[[], float]
Publish = Callable[[list[Event]], None]


@dataclass(frozen=True, slots=True)
class Work:
    """One prompt and its answer, as a request asks for them."""

    prompt: Tokens
    output: Tokens
    """Empty for an embedding: the work ends with its prefill."""
    reason: str
    """Why the answer ends: ``stop`` or ``length``."""
    max_tokens: int
    adapter: Adapter | None = None
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
    """Runs work on the batch of one rank in real time."""

    def __init__(
        self,
        settings: EngineSettings,
        rank: int,
        families: Families,
        frontend: FrontendMetrics,
        clock: Clock,
        publish: Publish | None = None,
    ) -> None:
        """``publish`` takes the KV events of a step; without it there are none."""
        limits = Limits(
            settings.max_running, settings.max_waiting, settings.max_loras, settings.prefill_tokens_per_s
        )
        self.rank = rank
        blocks = BlockCache(settings.num_blocks, settings.block_size)
        self.batch = Batch(limits, blocks, None if publish is None else [])
        self.metrics = RankMetrics(families, settings, rank, self.batch)
        self._frontend = frontend
        self._block_size = settings.block_size
        self._inter_token_s = settings.inter_token_s
        self._clock = clock
        self._publish = publish
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
        for sent in self._pauses(run, wanted):
            await self._reach(first + (sent - 1) * self._inter_token_s)
            if sent > run.sent:
                self._count(run, sent - run.sent, (sent - max(run.sent, 1)) * self._inter_token_s)
        if wanted == len(output):
            self._finish(run)

    def pause(self) -> None:
        """Start nothing until `resume`: requests wait and are told nothing."""
        self.batch.pause()

    def resume(self) -> None:
        """Start again what waits."""
        self.batch.resume(self._clock())
        self._settle()

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
            self._frontend.rejected()
            raise
        self._settle()
        return run

    def _pauses(self, run: Run, wanted: int) -> Iterable[int]:
        """How many tokens exist when a wait for ``wanted`` has something to do.

        Without KV events that is once; with them, each time that a block is full and shall be published.
        """
        if not wanted:
            return ()
        if self._publish is None or not self._inter_token_s:
            return (wanted,)
        size = self._block_size
        first = size - (len(run.work.prompt) - 1) % size
        return (*range(first, wanted, size), wanted)

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
            if self.batch.answered(run.id, run.sent):
                self._end_step()

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
        done = self.batch.advance(self._clock())
        if done:
            self._end_step()
        for prefilled in done:
            self.metrics.prompt_computed(len(prefilled.job.prompt), prefilled.cached)
            run = self._runs.get(prefilled.job.id)
            if run is not None and not run.prefilled.done():
                run.prefilled.set_result(prefilled)
        adapters = (self.batch.running_adapters, self.batch.waiting_adapters)
        if adapters != self._adapters_seen:
            self._adapters_seen = adapters
            self._frontend.adapters(self.rank, *adapters)
        self.close()
        if self.batch.next_at is not None:
            delay = max(0.0, self.batch.next_at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._settle)

    def _end_step(self) -> None:
        """Publish what happened to the blocks since the last step."""
        if self._publish is not None and self.batch.events:
            self._publish(self.batch.events)
            self.batch.events = []
