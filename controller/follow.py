"""Reads the directory at every change, and brings it into force if all of it is valid."""

import asyncio
import logging
from collections import Counter
from contextlib import aclosing

from controller.compile import Compilation, compile_records
from controller.manifests.reader import Reader
from controller.publish import Publisher
from controller.source import Directory, Tree
from extproc.state.records import ModelRoute

log = logging.getLogger("kvoy.controller")


def compile_tree(reader: Reader, tree: Tree) -> Compilation:
    """The configuration that a directory describes, or every problem in it."""
    return compile_records(reader.read(tree.files, tree.problems))


def counted(names: tuple[str, ...]) -> str:
    """For people: ``2 Service (v1), 1 Deployment (apps/v1)``."""
    return ", ".join(f"{times} {name}" for name, times in sorted(Counter(names).items()))


async def follow(directory: Directory, publisher: Publisher) -> None:
    """Follow the directory until cancelled."""
    reader = Reader()
    last = Compilation({})
    async with aclosing(directory.follow()) as trees:
        async for tree in trees:
            compilation = await asyncio.to_thread(compile_tree, reader, tree)
            _report(compilation, last, publisher.generation)
            if not compilation.problems:
                publisher.apply(compilation.records)
            last = compilation


def _report(now: Compilation, before: Compilation, generation: int) -> None:
    if now.skipped != before.skipped and now.skipped:
        log.warning("skipped, as kvoy does not read these kinds: %s", counted(now.skipped))
    for problem in now.problems:
        log.error("%s", problem)
    if now.problems:
        staying = f"generation {generation} stays in force" if generation else "nothing is published"
        log.error("%s until every problem (%d) is corrected", staying, len(now.problems))
        return
    if before.problems:
        log.info("the manifests are valid again")
    known = set(before.notes)
    for note in now.notes:
        if note not in known:
            log.warning("%s", note)
    if not any(isinstance(record, ModelRoute) for record in now.records.values()):
        log.warning("the manifests hold no ModelRoute: every model is unknown (404)")
