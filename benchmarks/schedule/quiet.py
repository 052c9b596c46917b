"""Decisions one after the other, while nothing else happens in the process."""

from collections.abc import Sequence

from benchmarks.schedule.apart import Line
from benchmarks.schedule.prompts import prompts_of
from benchmarks.schedule.report import Decisions
from benchmarks.schedule.scene import Scene
from benchmarks.schedule.worker import Worker
from extproc.cache.frames import Namespace


def quiet(_line: Line, scene: Scene, sizes: Sequence[int], count: int, passes: int) -> list[Decisions]:
    """`count` decisions per pass for each size in blocks; the sizes take turns."""
    asked = prompts_of(sizes)
    worker = Worker(scene, "bench")
    for life, prefix in scene.prefixes(asked):
        worker.holdings.restore(life, prefix)
    if scene.exact:
        for life, kv in scene.kv(asked):
            worker.holdings.restore(life, kv)
    _apply(worker)
    found = [Decisions.of(scene, prompts.blocks, events_per_s=0, workers=1) for prompts in asked]
    for _ in range(passes):
        for prompts, decisions in zip(asked, found, strict=True):
            decisions.passes.append([])
            for _ in range(count):
                decisions.passes[-1].append(worker.decide(prompts.draw()))
                _apply(worker)
    space = Namespace.KV if scene.exact else Namespace.PREFIX
    for decisions in found:
        decisions.index_entries = worker.holdings.entries(space)
    return found


def _apply(worker: Worker) -> None:
    while worker.holdings.step():
        pass
