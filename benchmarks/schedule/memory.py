"""Resident memory: per entry of an index, and over many decisions."""

import os
from pathlib import Path

import click

from benchmarks.schedule.apart import Line
from benchmarks.schedule.prompts import prompts_of
from benchmarks.schedule.report import MemoryRow, SoakRow
from benchmarks.schedule.scene import Scene
from benchmarks.schedule.worker import Worker
from extproc.cache.frames import Namespace
from extproc.cache.snapshots import Snapshot

_MB = 2**20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TOLD_AT = (0.01, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of a soak after which memory is read."""
_SOAK_BLOCKS = (32, 256)


def rss() -> int:
    """Bytes of resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def memory(_line: Line, scene: Scene) -> MemoryRow:
    """Fill one index: that of token ids if the scene is exact, else that of prompts."""
    worker = Worker(scene, "bench")
    # Made before, as bytes alone: nothing but the index takes memory from here on.
    snapshots: list[tuple[int, Snapshot]] = [*(scene.kv(()) if scene.exact else scene.prefixes(()))]
    before = rss()
    for life, snapshot in snapshots:
        worker.holdings.restore(life, snapshot)
        _apply(worker)
    entries = worker.holdings.entries(Namespace.KV if scene.exact else Namespace.PREFIX)
    each = (rss() - before) / entries
    return MemoryRow("kv" if scene.exact else "prefix", scene.pods, entries, round(each, 1))


def soak(_line: Line, scene: Scene, decisions: int) -> list[SoakRow]:
    """So many decisions one after the other, all with a new end: the index turns over again and again."""
    asked = prompts_of(_SOAK_BLOCKS)
    worker = Worker(scene, "bench")
    due = [int(decisions * share) for share in _TOLD_AT]
    found = []
    for number in range(1, decisions + 1):
        worker.decide(asked[number % len(asked)].draw())
        # What is learnt would be published, and then let go.
        worker.holdings.take_outbox(_MB)
        _apply(worker)
        if number in due:
            row = SoakRow(number, round(rss() / _MB, 1), worker.holdings.entries(Namespace.PREFIX))
            click.echo(f"soak: {row.decisions:,} decisions, {row.rss_mb:,} MB", err=True)
            found.append(row)
    return found


def _apply(worker: Worker) -> None:
    while worker.holdings.step():
        pass
