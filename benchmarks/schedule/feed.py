"""What the collectors publish: changes of the engines' caches at a rate, and how each engine is."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from random import Random

import uvloop

from benchmarks.schedule.apart import Line
from benchmarks.schedule.scene import Scene
from extproc.cache.frames import Frame, Namespace, Operation, pack_all, packed
from extproc.state.store import Store
from extproc.teach import Teach

GROUP = "bench"
_TICK_S = 0.010
_STEP_BLOCKS = 16
"""Blocks that one step of an engine stores or evicts."""
_KEPT_S = 2.0
"""How long a block stays cached."""


class Events:
    """Changes that are waiting to be published: as many blocks stored as evicted, some time later."""

    def __init__(self, scene: Scene) -> None:
        self._rng = Random(scene.seed)
        self._lives = scene.lives
        self._cached: deque[Frame] = deque()
        self._owed = 0.0
        self._out: list[Frame] = []
        self._changed: Callable[[], object] = list

    def watch(self, changed: Callable[[], object]) -> None:
        """As `extproc.teach.Outbox`."""
        self._changed = changed

    def occur(self, blocks: float, kept: float) -> None:
        """So many blocks change; the engines together keep `kept` blocks of those stored here."""
        self._owed += blocks
        while self._owed >= _STEP_BLOCKS:
            self._owed -= _STEP_BLOCKS
            self._out.append(self._step(kept))
        if self._out:
            self._changed()

    def take_outbox(self, limit_bytes: int) -> bytes:
        """As `extproc.teach.Outbox`; what is waiting is never much."""
        taken, self._out = self._out, []
        return pack_all(taken)

    def _step(self, kept: float) -> Frame:
        if len(self._cached) * _STEP_BLOCKS > kept:
            return self._cached.popleft()._replace(operation=Operation.REMOVE)
        hashes = [self._rng.getrandbits(64) for _ in range(_STEP_BLOCKS)]
        stored = Frame(self._rng.choice(self._lives), Namespace.KV, Operation.ADD, 0, packed(hashes))
        self._cached.append(stored)
        return stored


def feed(line: Line, url: str, scene: Scene, blocks_per_s: int) -> None:
    """Publish until the parent speaks."""
    uvloop.run(_feed(line, url, scene, blocks_per_s))


async def _feed(line: Line, url: str, scene: Scene, blocks_per_s: int) -> None:
    store = Store.connect(url, GROUP)
    events = Events(scene)
    try:
        async with asyncio.TaskGroup() as tasks:
            loops = [
                tasks.create_task(Teach(store, events, "bench/collector").run()),
                tasks.create_task(occur(events, blocks_per_s)),
                tasks.create_task(_state(store, scene)),
            ]
            await line.ready()
            for loop in loops:
                loop.cancel()
    finally:
        with contextlib.suppress(Exception):
            await store.close()


async def occur(events: Events, blocks_per_s: int) -> None:
    """Changes at the rate, whatever else takes time."""
    at = time.monotonic()
    while True:
        await asyncio.sleep(_TICK_S)
        now = time.monotonic()
        events.occur((now - at) * blocks_per_s, kept=_KEPT_S * blocks_per_s)
        at = now


async def _state(store: Store, scene: Scene) -> None:
    """As a collector with one second between its scrapes: statements about some engines at a time."""
    engines = scene.engines
    some = max(1, len(engines) // 16)
    while True:
        for at in range(0, len(engines), some):
            await store.streams.state(engines[at : at + some])
            await asyncio.sleep(some / len(engines))
