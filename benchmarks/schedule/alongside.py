"""Decisions at a rate, while the workers follow a busy store, share their requests and teach."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from random import Random

import uvloop

from benchmarks.schedule.apart import Apart, Line
from benchmarks.schedule.feed import GROUP, feed
from benchmarks.schedule.prompts import Prompts, prompts_of
from benchmarks.schedule.report import Decisions
from benchmarks.schedule.scene import Scene
from benchmarks.schedule.stalls import Stalls
from benchmarks.schedule.worker import Worker
from benchmarks.valkey import valkey
from extproc.cache import snapshots
from extproc.cache.frames import Namespace
from extproc.follow import Follow
from extproc.share import Share
from extproc.state.store import Store, Subject
from extproc.teach import Teach


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker is asked."""

    sizes: Sequence[int]
    """In blocks; they take turns."""
    seconds: float
    """Of one size in one pass."""
    passes: int
    rate: float = 150.0
    """Decisions per second."""
    events_per_s: int = 10_000
    """Block changes."""
    workers: int = 2


def alongside(scene: Scene, load: Load) -> list[Decisions]:
    """What the first of the workers measured, for each size."""
    with ExitStack() as resources:
        url = resources.enter_context(valkey())
        resources.enter_context(Apart(write, url, scene, load.sizes)).result()
        fed = resources.enter_context(Apart(feed, url, scene, load.events_per_s))
        fed.ready()
        workers = [
            resources.enter_context(Apart(work, url, replace(scene, seed=scene.seed + at), load, at))
            for at in range(load.workers)
        ]
        for worker in workers:
            worker.ready()
        for worker in workers:
            worker.tell()
        found = [worker.result() for worker in workers]
        fed.tell()
        fed.result()
        return found[0]


def write(_line: Line, url: str, scene: Scene, sizes: Sequence[int]) -> None:
    """Write the snapshots that the collectors would have written."""
    uvloop.run(_write(url, scene, sizes))


async def _write(url: str, scene: Scene, sizes: Sequence[int]) -> None:
    store = Store.connect(url, GROUP)
    asked = prompts_of(sizes)
    for life, prefix in scene.prefixes(asked):
        await store.snapshots.write(Subject(Namespace.PREFIX, life), snapshots.encode(prefix))
    for life, kv in scene.kv(asked) if scene.exact else ():
        await store.snapshots.write(Subject(Namespace.KV, life), snapshots.encode(kv))
    await store.close()


def work(line: Line, url: str, scene: Scene, load: Load, at: int) -> list[Decisions]:
    """Be worker number `at`."""
    return uvloop.run(_work(line, url, scene, load, at))


async def _work(line: Line, url: str, scene: Scene, load: Load, at: int) -> list[Decisions]:
    store = Store.connect(url, GROUP)
    instance = f"bench/{at}"
    worker = Worker(scene, instance)
    reservations, holdings = worker.reservations, worker.holdings
    follow = Follow(store, holdings, reservations, worker.engines, instance, time.monotonic)
    share = Share(store, reservations, instance, time.monotonic)
    teach = Teach(store, holdings, instance)
    stalls = Stalls()
    asked = prompts_of(load.sizes)
    found = [Decisions.of(scene, blocks, load.events_per_s, load.workers) for blocks in load.sizes]
    try:
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(part.run()) for part in (follow, share, teach, stalls)]
            await follow.complete()
            await line.ready()
            # The first second meets cold caches, in the processor and elsewhere.
            await _decide(worker, asked[0], load.rate, 1.0)
            for _ in range(load.passes):
                for prompts, decisions in zip(asked, found, strict=True):
                    stalls.taken()
                    decisions.passes.append(await _decide(worker, prompts, load.rate, load.seconds))
                    decisions.held = decisions.held.worse(stalls.taken())
            space = Namespace.KV if scene.exact else Namespace.PREFIX
            for decisions in found:
                decisions.index_entries = holdings.entries(space)
            for loop in loops:
                loop.cancel()
    finally:
        await store.close()
    return found


async def _decide(worker: Worker, prompts: Prompts, rate: float, seconds: float) -> list[float]:
    """Requests that come at random, so many per second on average, whatever the worker manages."""
    rng = Random(prompts.blocks)
    took = []
    at = time.monotonic()
    end = at + seconds
    while (at := at + rng.expovariate(rate)) < end:
        prompt = prompts.draw()
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        took.append(worker.decide(prompt))
    return took
