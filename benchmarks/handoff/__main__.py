"""``python -m benchmarks.handoff``: what a hand-off costs, and what it is good for."""

import asyncio
from pathlib import Path

import click
import uvloop

from benchmarks.handoff.added import Measured, gateway, measure
from benchmarks.handoff.loads import LOADS
from benchmarks.handoff.play import play
from benchmarks.handoff.report import (
    AddedRow,
    FleetRow,
    added_rows,
    added_table,
    fleet_row,
    fleet_table,
    write_json,
)

CASES = ("added", "fleets")
_SEED = 1


async def added(sizes: tuple[int, ...], seconds: float) -> list[AddedRow]:
    """What each connector adds."""
    measured: list[Measured] = []
    async with gateway() as stack:
        async for each in measure(stack, sizes, seconds):
            _say(f"added: {each.mode}, {each.body_bytes:,} bytes, {each.load.at_a_time} at a time")
            measured.append(each)
    return added_rows(measured)


async def fleets(seconds: float) -> list[FleetRow]:
    """What each fleet makes of each load."""
    rows: list[FleetRow] = []
    for load in LOADS:
        _say(f"fleets: {load.text}")
        rows += [fleet_row(played) for played in await play(load, seconds, _SEED)]
    return rows


def _say(what: str) -> None:
    click.echo(what, err=True)


@click.command(
    epilog="""\b
Examples:
  make bench-handoff JSON=rows.json
  python -m benchmarks.handoff --case added --body 1000
  python -m benchmarks.handoff --case fleets --fleet-seconds 60"""
)
@click.option("--case", "cases", type=click.Choice(CASES), multiple=True, default=CASES, show_default=True,
              help="One of the measurements; may be repeated.")  # fmt: skip
@click.option("--body", "sizes", multiple=True, type=click.IntRange(min=150),
              default=(1_000, 32_000, 400_000), show_default=True,
              help="Body size in bytes; repeat for several.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0.05), default=2.0, show_default=True,
              help="Length of each measurement of what is added.")  # fmt: skip
@click.option("--fleet-seconds", type=click.FloatRange(min=0.05), default=20.0, show_default=True,
              help="For how long each load is put on the fleets.")  # fmt: skip
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Keep the rows here.")
def main(
    cases: tuple[str, ...], sizes: tuple[int, ...], seconds: float, fleet_seconds: float, file: Path | None
) -> None:
    """Measure what a hand-off costs, and what four simulated GPUs do with and without it."""
    rows: list[AddedRow | FleetRow] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if "added" in cases:
            paid = runner.run(added(sizes, seconds))
            click.echo(added_table(paid))
            rows += paid
        if "fleets" in cases:
            gained = runner.run(fleets(fleet_seconds))
            click.echo(fleet_table(gained))
            rows += gained
    if file is not None:
        write_json(rows, file)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.handoff")
