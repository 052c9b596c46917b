"""Who runs, who waits, and when a prefill is done. Time is an argument, in seconds of any monotonic clock.

Requests start in the order of arrival when a slot and enough blocks are free; one whose adapter finds no
place among the running ones is passed over. Prefills are computed one after another at a fixed speed,
whatever else runs; how fast answers grow is the matter of `pace`.

A job whose prompt another engine computes takes its blocks, then waits outside the queue until what they lack
has come (`received`), and needs a slot only from then on, as in vLLM. Such blocks may also outlive their job
(`keep`), for another engine to read.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace

from benchmarks.engine import cache
from benchmarks.engine.cache import BlockCache, Lease
from benchmarks.engine.events import AllBlocksCleared, Chain, Event, removed
from benchmarks.engine.models import Adapter
from benchmarks.engine.tokens import Tokens


class QueueFullError(Exception):
    """As many requests wait as may wait."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a batch can do at once and how fast."""

    max_running: int
    max_waiting: int
    max_adapters: int
    """Different LoRA adapters that may run at the same time."""
    prefill_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt and the answer it will get."""

    id: int
    prompt: Tokens
    output: Tokens
    adapter: Adapter | None = None
    salt: str | None = None
    remote: bool = False
    """What the cache lacks of the prompt comes from another engine."""
    reused: int | None = None
    """What usage calls cached, if another engine said so; None where this one knows."""

    @property
    def root(self) -> cache.BlockHash:
        """What the first block of the prompt follows."""
        return cache.root(None if self.adapter is None else self.adapter.name, self.salt)

    def slice(self, start: int, stop: int) -> Tokens:
        """Tokens of the prompt and then the answer."""
        prompt = len(self.prompt)
        return self.prompt[start:stop] + self.output[max(0, start - prompt) : max(0, stop - prompt)]


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prompt of a job is computed: its first token exists."""

    job: Job
    arrived: float
    started: float
    at: float
    cached: int
    """Prompt tokens that came from the prefix cache."""
    created: int
    """Prompt tokens in full blocks that this job computed and added to the cache."""
    external: int = 0
    """Prompt tokens that came from another engine."""

    @property
    def reused(self) -> int:
        """Prompt tokens that usage calls cached."""
        return self.cached + self.external if self.job.reused is None else self.job.reused


@dataclass(frozen=True, slots=True)
class _Waiting:
    job: Job
    arrived: float
    hashes: list[cache.BlockHash]
    lease: Lease | None = None
    """Of a remote prompt; others take their blocks when they start."""
    external: int = 0


@dataclass(frozen=True, slots=True)
class _Running:
    job: Job
    arrived: float
    started: float
    hashes: list[cache.BlockHash]
    """Of the full blocks of the prompt, then of those that the answer filled."""
    lease: Lease
    external: int
    """Prompt tokens that came from another engine."""


@dataclass(slots=True)
class Batch:
    """The requests inside the engine."""

    limits: Limits
    blocks: BlockCache
    events: list[Event] | None = None
    """What happened to the blocks since somebody last emptied this list; None if nobody asks."""
    admitted: dict[int, int] = field(default_factory=dict)
    """Remote jobs that got their blocks since somebody last emptied this, and the prompt tokens they lack."""
    _waiting: OrderedDict[int, _Waiting] = field(default_factory=OrderedDict)
    _receiving: dict[int, _Waiting] = field(default_factory=dict)
    """Remote jobs that have their blocks, but not yet what belongs in them."""
    _running: dict[int, _Running] = field(default_factory=dict)
    _line: OrderedDict[int, _Running] = field(default_factory=OrderedDict)
    """Running jobs whose prompt is not computed; the first one is being computed until `next_at`."""
    _adapters: Counter[str] = field(default_factory=Counter)
    """Running jobs per adapter; no zeros."""
    _complete: list[Prefilled] = field(default_factory=list)
    """Prompts that came whole from another engine, and that `advance` has not told of."""
    next_at: float | None = None
    """When `advance` has something to do; None while no prefill runs."""
    _paused: bool = False

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def decoding(self) -> int:
        """Running jobs whose prompt is computed."""
        return len(self._running) - len(self._line)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._receiving)

    @property
    def deferred(self) -> int:
        """Waiting jobs that wait for another engine, or whose adapter finds no place."""
        blocked = sum(self._adapter_is_blocked(entry.job) for entry in self._waiting.values())
        return blocked + len(self._receiving)

    @property
    def to_fetch(self) -> int:
        """Remote jobs without blocks."""
        return sum(entry.job.remote and entry.lease is None for entry in self._waiting.values())

    @property
    def fetching(self) -> int:
        """Remote jobs that have their blocks, but not yet what belongs in them."""
        return len(self._receiving)

    @property
    def fetched(self) -> int:
        """Remote jobs that need nothing more but a slot."""
        return sum(entry.lease is not None for entry in self._waiting.values())

    @property
    def running_adapters(self) -> frozenset[str]:
        return frozenset(self._adapters)

    @property
    def waiting_adapters(self) -> frozenset[str]:
        return frozenset(entry.job.adapter.name for entry in self._waiting.values() if entry.job.adapter)

    def submit(self, job: Job, now: float) -> None:
        """Start the job or let it wait; QueueFullError leaves everything as it was."""
        hashes = cache.chain(job.root, job.prompt, self.blocks.block_size)
        self._waiting[job.id] = _Waiting(job, now, hashes)
        self._start_what_fits(now)
        if len(self._waiting) > self.limits.max_waiting:
            del self._waiting[job.id]
            raise QueueFullError

    def advance(self, now: float) -> list[Prefilled]:
        """The jobs whose prefill ended up to ``now``, in order."""
        done, self._complete = self._complete, []
        while self.next_at is not None and self.next_at <= now:
            _, entry = self._line.popitem(last=False)
            self._compute(entry)
            done.append(self._prefilled(entry, self.next_at))
            self._begin_prefill(self.next_at)
        return done

    def answered(self, job_id: int, tokens: int) -> bool:
        """The answer of a running job has so many tokens; True if they fill a block of its own.

        The last token of an answer has no KV: nothing came after it.
        """
        entry = self._running[job_id]
        size = self.blocks.block_size
        full = (len(entry.job.prompt) + tokens - 1) // size
        before = len(entry.hashes)
        for place in range(before, full):
            self._fill(entry, place, entry.job.slice(place * size, (place + 1) * size))
        return full > before

    def leave(self, job_id: int, now: float, answered: int) -> None:
        """A job ends, complete or not, after ``answered`` tokens of its output; unknown ids are ignored."""
        self.admitted.pop(job_id, None)
        for entries in (self._waiting, self._receiving):
            waiting = entries.pop(job_id, None)
            if waiting is not None and waiting.lease is not None:
                self.blocks.release(waiting.lease)
        if job_id in self._running:
            self.blocks.release(self._end(job_id, now, answered))
        self._start_what_fits(now)

    def received(self, job_id: int, tokens: int, now: float) -> None:
        """So many prompt tokens of a remote job have come; it computes the rest when it gets a slot."""
        entry = self._receiving.pop(job_id)
        self._waiting[job_id] = replace(entry, external=tokens)
        self._waiting.move_to_end(job_id, last=False)
        self._start_what_fits(now)

    def keep(self, job_id: int, now: float, answered: int) -> Lease:
        """As `leave` of a running job, but its blocks stay in use until `drop`."""
        lease = self._end(job_id, now, answered)
        self._start_what_fits(now)
        return lease

    def drop(self, lease: Lease, now: float) -> None:
        """Give back blocks that were kept."""
        self.blocks.release(lease)
        self._start_what_fits(now)

    def pause(self) -> None:
        """Start nothing until `resume`; what runs is computed to its end."""
        self._paused = True

    def resume(self, now: float) -> None:
        """Start again what waits."""
        self._paused = False
        self._start_what_fits(now)

    def clear_cache(self) -> bool:
        """Forget every cached block; False, with nothing done, while requests run."""
        cleared = self.blocks.clear()
        if cleared and self.events is not None:
            self.events.append(AllBlocksCleared())
        return cleared

    def _compute(self, entry: _Running) -> None:
        fresh = self.blocks.computed(entry.lease)
        if self.events is not None:
            size, chain = self.blocks.block_size, self._chain(entry)
            for places in fresh:
                tokens = entry.job.slice(places.start * size, places.stop * size)
                self.events.append(chain.stored(places, tokens))

    def _fill(self, entry: _Running, place: int, tokens: Tokens) -> None:
        parent = entry.hashes[-1] if entry.hashes else entry.job.root
        entry.hashes.extend(cache.chain(parent, tokens, self.blocks.block_size))
        self.blocks.fill(entry.lease, entry.hashes[place])
        if self.events is not None:
            self.events.append(self._chain(entry).stored(range(place, place + 1), tokens))

    def _chain(self, entry: _Running) -> Chain:
        return Chain(entry.hashes, self.blocks.block_size, entry.job.adapter, entry.job.salt)

    def _end(self, job_id: int, now: float, answered: int) -> Lease:
        if answered:
            self.answered(job_id, answered)
        entry = self._running.pop(job_id)
        if entry.job.id in self._line:
            was_first = next(iter(self._line)) == entry.job.id
            del self._line[entry.job.id]
            if was_first:
                self._begin_prefill(now)
        if entry.job.adapter is not None:
            self._adapters[entry.job.adapter.name] -= 1
            self._adapters += Counter()  # drops the zeros
        return entry.lease

    def _start_what_fits(self, now: float) -> None:
        for entry in tuple(self._waiting.values()):
            if self._paused or len(self._running) >= self.limits.max_running:
                return
            if self._adapter_is_blocked(entry.job):
                continue
            lease = self._take(entry) if entry.lease is None else entry.lease
            if lease is None:
                return
            del self._waiting[entry.job.id]
            if entry.job.remote and entry.lease is None:
                self._await_transfer(entry, lease)
            else:
                self._start(entry, lease, now)

    def _take(self, entry: _Waiting) -> Lease | None:
        prompt = len(entry.job.prompt)
        taken = self.blocks.take(entry.hashes, prompt, prompt + len(entry.job.output))
        if taken is None:
            return None
        lease, gone = taken
        if self.events is not None:
            self.events += removed(gone)
        return lease

    def _await_transfer(self, entry: _Waiting, lease: Lease) -> None:
        self._receiving[entry.job.id] = replace(entry, lease=lease)
        self.admitted[entry.job.id] = len(entry.job.prompt) - lease.hits * self.blocks.block_size

    def _start(self, waited: _Waiting, lease: Lease, now: float) -> None:
        entry = _Running(waited.job, waited.arrived, now, waited.hashes, lease, waited.external)
        self._running[entry.job.id] = entry
        if entry.job.adapter is not None:
            self._adapters[entry.job.adapter.name] += 1
        if not self._lacks(entry):
            self._compute(entry)
            self._complete.append(self._prefilled(entry, now))
            return
        self._line[entry.job.id] = entry
        if self.next_at is None:
            self._begin_prefill(now)

    def _lacks(self, entry: _Running) -> int:
        """Prompt tokens to compute."""
        return len(entry.job.prompt) - entry.lease.hits * self.blocks.block_size - entry.external

    def _begin_prefill(self, now: float) -> None:
        if not self._line:
            self.next_at = None
            return
        entry = next(iter(self._line.values()))
        self.next_at = max(now, entry.started) + self._lacks(entry) / self.limits.prefill_tokens_per_s

    def _prefilled(self, entry: _Running, at: float) -> Prefilled:
        size = self.blocks.block_size
        cached = entry.lease.hits * size
        created = max(0, len(entry.lease.named) * size - cached - entry.external)
        return Prefilled(entry.job, entry.arrived, entry.started, at, cached, created, entry.external)

    def _adapter_is_blocked(self, job: Job) -> bool:
        if job.adapter is None:
            return False
        return job.adapter.name not in self._adapters and len(self._adapters) >= self.limits.max_adapters
