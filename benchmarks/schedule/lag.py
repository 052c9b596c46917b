"""From publishing something to having applied it in every worker, over one real Valkey."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal

import uvloop

from benchmarks.schedule.apart import Apart, Line
from benchmarks.schedule.feed import GROUP, Events, occur
from benchmarks.schedule.report import LagRow, quantile
from benchmarks.schedule.scene import Scene
from benchmarks.valkey import valkey
from extproc.cache.frames import Frame, Namespace, Operation, packed
from extproc.cache.holdings import Holdings
from extproc.follow import Follow
from extproc.reservations import Reservations
from extproc.state.engines import Engines
from extproc.state.live import InFlight, Load
from extproc.state.store import Store
from extproc.teach import Teach

_PROBE = "bench/probe"
_PROBE_LIFE = 1
_SETTLE_S = 1.5
"""Until readers have seen how busy it is."""
Lags = tuple[list[float], list[float]]
"""Of statements and of blocks, in seconds."""


class _Hearing(Reservations):
    """Notes how old the statements of the probe are when they are applied."""

    def __init__(self) -> None:
        super().__init__(time.monotonic)
        self.lags: list[float] = []

    def absorb(self, statement: InFlight) -> None:
        super().absorb(statement)
        if statement.instance == _PROBE:
            self.lags.append(time.monotonic() - statement.loads["sent"].tokens / 1e6)


class _Learning(Holdings):
    """Notes how old changes are when they are applied: each entry ends with the time when it was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.lags: list[float] = []
        self._waiting: deque[float] = deque()

    def receive(self, raw: bytes, only: object = None) -> None:
        super().receive(raw)
        self._waiting.append(int.from_bytes(raw[-8:], "little") / 1e6)

    def step(self, budget: int = 128) -> bool:
        more = super().step(budget)
        if not self.queued:
            now = time.monotonic()
            self.lags += [now - sent for sent in self._waiting]
            self._waiting.clear()
        return more


class _Stamped(Events):
    """Changes that say when they were taken to be published."""

    def take_outbox(self, limit_bytes: int) -> bytes:
        taken = super().take_outbox(limit_bytes)
        sent = packed([int(time.monotonic() * 1e6)])
        stamp = Frame(_PROBE_LIFE, Namespace.KV, Operation.ADD, 0, sent)
        return taken + stamp.pack() if taken else b""


def lag(scene: Scene, workers: int, entries_per_s: int, blocks_per_s: int, seconds: float) -> list[LagRow]:
    """How old statements and changes are when the workers, all together, have applied them."""
    with ExitStack() as resources:
        url = resources.enter_context(valkey())
        readers = [resources.enter_context(Apart(read, url, scene)) for _ in range(workers)]
        for reader in readers:
            reader.ready()
        rates = (entries_per_s, blocks_per_s)
        resources.enter_context(Apart(publish, url, scene, *rates, seconds + _SETTLE_S)).result()
        for reader in readers:
            reader.tell()
        heard = [reader.result() for reader in readers]
    rows = []
    if entries_per_s:
        rows.append(_row("statements", workers, rates, [lags for lags, _ in heard], seconds))
    if blocks_per_s:
        rows.append(_row("blocks", workers, rates, [lags for _, lags in heard], seconds))
    return rows


def _row(
    what: Literal["statements", "blocks"],
    workers: int,
    rates: tuple[int, int],
    heard: Sequence[list[float]],
    seconds: float,
) -> LagRow:
    """Of what was heard after things had settled."""
    share = seconds / (seconds + _SETTLE_S)
    late = [lag for lags in heard for lag in lags[-max(1, int(share * len(lags))) :]]
    p50, p99, worst = (round(quantile(late, q) * 1e3, 2) for q in (0.5, 0.99, 1.0))
    return LagRow(what, workers, *rates, p50, p99, worst)


def read(line: Line, url: str, scene: Scene) -> Lags:
    """Follow until the parent speaks."""
    return uvloop.run(_read(line, url, scene))


async def _read(line: Line, url: str, scene: Scene) -> Lags:
    store = Store.connect(url, GROUP)
    hearing, learning = _Hearing(), _Learning()
    for life in scene.lives:
        learning.enroll(life, 1 << 30)
    follow = Follow(store, learning, hearing, Engines(time.monotonic), "bench/reader", time.monotonic)
    try:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follow.run())
            await follow.complete()
            await line.ready()
            following.cancel()
    finally:
        await store.close()
    return hearing.lags, learning.lags


def publish(
    _line: Line, url: str, scene: Scene, entries_per_s: int, blocks_per_s: int, seconds: float
) -> None:
    """State and change at these rates for a while."""
    uvloop.run(_publish(url, scene, entries_per_s, blocks_per_s, seconds))


async def _publish(url: str, scene: Scene, entries_per_s: int, blocks_per_s: int, seconds: float) -> None:
    store = Store.connect(url, GROUP)
    events = _Stamped(scene)
    async with asyncio.TaskGroup() as tasks:
        loops = [
            tasks.create_task(loop)
            for loop in (
                Teach(store, events, _PROBE).run(),
                occur(events, blocks_per_s),
                _state(store, entries_per_s),
            )
        ]
        await asyncio.sleep(seconds)
        for loop in loops:
            loop.cancel()
    await store.close()


async def _state(store: Store, entries_per_s: int) -> None:
    """The probe's statements; one that is late is followed by the next at once."""
    at = time.monotonic()
    while entries_per_s:
        at += 1 / entries_per_s
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        sent = Load(1, int(time.monotonic() * 1e6))
        await store.streams.state([InFlight(_PROBE, {"sent": sent})])
