"""The asyncio layer over the batch: one timer for all prefills, one future per request.

Nothing happens per token in here but in `tokens`, and only for an answer that is streamed: the times of all
tokens follow from the first one and from the pace, which sleepers are told of when it changes.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.engine.batch import Batch, Job, Limits, Prefilled, QueueFullError
from benchmarks.engine.cache import BlockCache, Lease
from benchmarks.engine.events import Event
from benchmarks.engine.families import Families
from benchmarks.engine.frontend import FrontendMetrics
from benchmarks.engine.metrics import Finished, RankMetrics
from benchmarks.engine.models import Adapter
from benchmarks.engine.pace import Pace
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.tokens import Tokens

Clock = Callable[[], float]
Publish = Callable[[list[Event]], None]
Keep = Callable[[Lease, Prefilled], None]
"""Takes over the blocks of work that ran to its end."""


class Origin(Protocol):
    """Another engine that has, or will have, the KV cache of a prompt."""

    async def fetch(self, lacking: int) -> int:
        """Get the last ``lacking`` tokens of the prompt; returns how many of them came, from the first."""

    def leave(self) -> None:
        """The work has ended, whether or not it has fetched."""


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
    origin: Origin | None = None
    """Where the prompt's KV cache comes from, if not from here."""
    reused: int | None = None
    """What usage calls cached, if another engine said so."""
    keep: Keep | None = None
    """Gets the blocks; None frees them."""


@dataclass(slots=True)
class Run:
    """One piece of work inside the engine."""

    id: int
    work: Work
    n: int
    """Pieces of work that the request asked for per prompt."""
    admitted: asyncio.Future[int] = field(repr=False)
    """Of work with an origin: has its blocks, and lacks so many prompt tokens."""
    prefilled: asyncio.Future[Prefilled] = field(repr=False)
    sent: int = 0
    """Tokens of the answer that exist."""
    step: float = 0.0
    """At which step of the engine the first token came."""
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
        self._pace = _pace(settings, clock())
        self._pace_changed = asyncio.Event()
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

    async def computed(self, run: Run) -> Prefilled:
        """Wait until the prompt is computed, or has come from its origin and what it lacks is computed.

        Raises what `Origin.fetch` raises.
        """
        if run.work.origin is not None and not run.prefilled.done():
            came = await run.work.origin.fetch(await run.admitted)
            self.batch.received(run.id, came, self._clock())
            self._settle()
        return await run.prefilled

    async def tokens(self, run: Run) -> AsyncGenerator[Tokens, None]:
        """The answer as it comes into being: one token at a time, several if the reader fell behind."""
        output = run.work.output
        last = (await self.computed(run)).at
        while run.sent < len(output):
            now = await self._reach(run.step + run.sent)
            due = self._due(run, now)
            burst = output[run.sent : max(due, run.sent + 1)]
            self._count(run, len(burst), now - last)
            last = now
            yield burst
        self._finish(run)

    async def wait(self, run: Run, stop_after: int | None = None) -> None:
        """Let the whole answer come into being, or only its first ``stop_after`` tokens."""
        output = run.work.output
        last = self._clock() if run.sent else (await self.computed(run)).at
        wanted = len(output) if stop_after is None else min(stop_after, len(output))
        for sent in self._pauses(run, wanted):
            now = await self._reach(run.step + sent - 1)
            if sent > run.sent:
                self._count(run, sent - run.sent, now - last)
                last = now
        if wanted == len(output):
            self._finish(run)

    def pause(self) -> None:
        """Start nothing until `resume`: requests wait and are told nothing."""
        self.batch.pause()

    def resume(self) -> None:
        """Start again what waits."""
        self.batch.resume(self._clock())
        self._settle()

    def drop(self, lease: Lease) -> None:
        """Give back blocks that were kept."""
        self.batch.drop(lease, self._clock())
        self._settle()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _submit(self, work: Work, n: int) -> Run:
        loop = asyncio.get_running_loop()
        run = Run(next(self._ids), work, n, loop.create_future(), loop.create_future())
        self._runs[run.id] = run
        remote = work.origin is not None
        try:
            job = Job(run.id, work.prompt, work.output, work.adapter, work.salt, remote, work.reused)
            self.batch.submit(job, self._clock())
        except QueueFullError:
            del self._runs[run.id]
            if work.origin is not None:
                work.origin.leave()
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

    async def _reach(self, steps: float) -> float:
        """Sleep until so many steps are computed; returns the time then."""
        now = self._clock()
        while (due := self._pace.due(steps)) > now:
            another_pace = await self._sleep(due - now)
            now = self._clock()
            if not another_pace:
                break
        return now

    async def _sleep(self, seconds: float) -> bool:
        """True if it ended early, as the pace has changed."""
        try:
            async with asyncio.timeout(seconds):
                return await self._pace_changed.wait()
        except TimeoutError:
            return False

    def _due(self, run: Run, now: float) -> int:
        """Tokens of its answer that exist by now."""
        length = len(run.work.output)
        if self._inter_token_s == 0:
            return length
        return min(length, int(self._pace.steps(now) - run.step) + 1)

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
        prefilled = run.prefilled.result()
        if run.work.keep is None:
            now = self._leave(run)
        else:
            now = self._clock()
            run.work.keep(self.batch.keep(run.id, now, run.sent), prefilled)
            self._leave(run)
        self.metrics.finished(Finished(prefilled, now, run.work.reason, run.n, run.work.max_tokens))

    def _abort(self, run: Run) -> None:
        if not run.ended:
            run.admitted.cancel()
            run.prefilled.cancel()
            self._leave(run)

    def _leave(self, run: Run) -> float:
        run.ended = True
        if run.work.origin is not None:
            run.work.origin.leave()
        del self._runs[run.id]
        now = self._clock()
        self.batch.leave(run.id, now, run.sent)
        self._settle()
        return now

    def _settle(self) -> None:
        """Tell runs whose prompt is computed, and set the timer for the next one."""
        for job_id, lacking in self.batch.admitted.items():
            self._runs[job_id].admitted.set_result(lacking)
        self.batch.admitted.clear()
        done = self.batch.advance(self._clock())
        if done:
            self._end_step()
        for prefilled in done:
            self.metrics.prompt_computed(prefilled)
            run = self._runs.get(prefilled.job.id)
            if run is not None and not run.prefilled.done():
                run.step = self._pace.steps(prefilled.at)
                run.prefilled.set_result(prefilled)
        self._keep_pace()
        adapters = (self.batch.running_adapters, self.batch.waiting_adapters)
        if adapters != self._adapters_seen:
            self._adapters_seen = adapters
            self._frontend.adapters(self.rank, *adapters)
        self.close()
        if self.batch.next_at is not None:
            delay = max(0.0, self.batch.next_at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._settle)

    def _keep_pace(self) -> None:
        """Notice who decodes and whether a prompt is being computed."""
        if self._pace.change(self.batch.decoding, self.batch.next_at is not None, self._clock()):
            self._pace_changed.set()
            self._pace_changed = asyncio.Event()

    def _end_step(self) -> None:
        """Publish what happened to the blocks since the last step."""
        if self._publish is not None and self.batch.events:
            self._publish(self.batch.events)
            self.batch.events = []


def _pace(settings: EngineSettings, now: float) -> Pace:
    chunk_s = settings.prefill_chunk_tokens / settings.prefill_tokens_per_s
    return Pace(settings.inter_token_s, settings.inter_token_s_per_answer, chunk_s, now)
