"""``python -m benchmarks.schedule``: what a decision costs, and what keeps its replicas up to date."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.schedule.alongside import Load, alongside
from benchmarks.schedule.apart import apart
from benchmarks.schedule.ingest import ingest
from benchmarks.schedule.lag import lag
from benchmarks.schedule.memory import memory, soak
from benchmarks.schedule.quiet import quiet
from benchmarks.schedule.report import Row, decision_row, tables, write_json
from benchmarks.schedule.scene import Scene
from benchmarks.schedule.tokenising import tokenising

CASES = ("decisions", "alongside", "memory", "ingest", "lag", "tokenising", "soak")
EXACT_BLOCKS = 2000
"""Size of the prompts that are matched by token ids, unless other sizes are asked for alone."""
_INGEST_BATCHES = (64, 512)
_INGEST_BLOCKS = 100_000
_LAG_RATES = ((100, 0), (100, 10_000), (400, 10_000))
"""Statements and block changes per second."""
_TOKENISED_BYTES = (2_000, 128_000)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured."""

    cases: tuple[str, ...]
    pods: tuple[int, ...]
    blocks: tuple[int, ...]
    workers: tuple[int, ...]
    entries: int
    seconds: float
    passes: int
    soak: int
    tokenizer: Path | None

    @property
    def exact_blocks(self) -> tuple[int, ...]:
        return (EXACT_BLOCKS,) if EXACT_BLOCKS in self.blocks else self.blocks[-1:]

    @property
    def middle(self) -> int:
        """The number of pods where only one is measured."""
        return 64 if 64 in self.pods else self.pods[0]


def measure(wanted: Wanted) -> Iterator[Row]:
    """The rows, case by case."""
    measures = {
        "decisions": _decisions,
        "alongside": _alongside,
        "memory": _memory,
        "ingest": _ingest,
        "lag": _lag,
        "tokenising": _tokenising,
        "soak": _soak,
    }
    for case in wanted.cases:
        yield from measures[case](wanted)


def _decisions(wanted: Wanted) -> Iterator[Row]:
    count = max(1, int(wanted.seconds * 100))
    for pods in wanted.pods:
        for exact, sizes in ((False, wanted.blocks), (True, wanted.exact_blocks)):
            _say(f"decisions: {pods} pods, {'token ids' if exact else 'text'}, quiet")
            scene = Scene(pods, wanted.entries, exact)
            yield from map(decision_row, apart(quiet, scene, sizes, count, wanted.passes))


def _alongside(wanted: Wanted) -> Iterator[Row]:
    runs = [
        (wanted.entries, False, wanted.blocks),
        (wanted.entries, True, wanted.exact_blocks),
        (2 * wanted.entries, False, wanted.blocks[-1:]),
    ]
    for entries, exact, sizes in runs:
        _say(f"decisions: {'token ids' if exact else 'text'}, {entries:,} entries, events alongside")
        load = Load(sizes, wanted.seconds, wanted.passes)
        yield from map(decision_row, alongside(Scene(wanted.middle, entries, exact), load))


def _memory(wanted: Wanted) -> Iterator[Row]:
    for pods in wanted.pods:
        for exact in (False, True):
            _say(f"memory: {pods} pods")
            yield apart(memory, Scene(pods, wanted.entries, exact))


def _ingest(wanted: Wanted) -> Iterator[Row]:
    for per_batch in _INGEST_BATCHES:
        _say(f"ingest: batches of {per_batch} blocks")
        yield apart(ingest, _INGEST_BLOCKS, per_batch, wanted.passes)


def _lag(wanted: Wanted) -> Iterator[Row]:
    for workers in wanted.workers:
        for statements, blocks in _LAG_RATES:
            _say(f"lag: {workers} workers, {statements} statements and {blocks:,} block changes per second")
            yield from lag(Scene(wanted.middle, 0), workers, statements, blocks, wanted.seconds)


def _tokenising(wanted: Wanted) -> Iterator[Row]:
    if wanted.tokenizer is None:
        _say("tokenising: skipped, name a tokeniser's directory with --tokenizer")
        return
    _say("tokenising")
    yield from apart(tokenising, wanted.tokenizer, _TOKENISED_BYTES, 20 * wanted.passes)


def _soak(wanted: Wanted) -> Iterator[Row]:
    if wanted.soak:
        _say(f"soak: {wanted.soak:,} decisions")
        yield from apart(soak, Scene(wanted.middle, 0), wanted.soak)


def _say(what: str) -> None:
    click.echo(what, err=True)


@click.command(
    epilog="""\b
Examples:
  make bench-schedule JSON=rows.json
  python -m benchmarks.schedule --case decisions --pods 64 --blocks 2000
  python -m benchmarks.schedule --case soak --soak 1000000"""
)
@click.option("--case", "cases", type=click.Choice(CASES), multiple=True,
              help="One of the measurements; may be repeated. Default: all.")  # fmt: skip
@click.option("--pods", type=click.IntRange(min=1), multiple=True, default=(4, 64, 512), show_default=True)
@click.option("--blocks", type=click.IntRange(min=4), multiple=True, default=(32, 256, 2000, 6250),
              show_default=True, help="Prompt sizes in blocks of 64 bytes.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), multiple=True, default=(1, 4, 8), show_default=True,
              help="Reading processes of the lag.")  # fmt: skip
@click.option("--entries", type=click.IntRange(min=0), default=1_000_000, show_default=True,
              help="Blocks in the index.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0.05), default=3.0, show_default=True,
              help="Length of one pass of one measurement, about.")  # fmt: skip
@click.option("--passes", type=click.IntRange(min=1), default=3, show_default=True,
              help="Figures are medians of so many.")  # fmt: skip
@click.option("--soak", type=click.IntRange(min=0), default=20_000, show_default=True,
              help="Decisions over which memory is watched.")  # fmt: skip
@click.option("--tokenizer", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Directory of a tokeniser.")  # fmt: skip
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Keep the rows here.")
def main(
    cases: tuple[str, ...],
    pods: tuple[int, ...],
    blocks: tuple[int, ...],
    workers: tuple[int, ...],
    entries: int,
    seconds: float,
    passes: int,
    soak: int,
    tokenizer: Path | None,
    file: Path | None,
) -> None:
    """Measure what a decision costs, and what keeps the replicas that it reads up to date."""
    wanted = Wanted(cases or CASES, pods, blocks, workers, entries, seconds, passes, soak, tokenizer)
    rows = list(measure(wanted))
    click.echo(tables(rows))
    if file is not None:
        write_json(rows, file)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.schedule")
