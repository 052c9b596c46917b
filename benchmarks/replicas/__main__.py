"""``python -m benchmarks.replicas``: do many workers decide like one?"""

from pathlib import Path

import click
import uvloop

from benchmarks.replicas.report import table, write_json
from benchmarks.replicas.run import POLICIES, measure
from benchmarks.replicas.trace import Shape


@click.command(
    epilog="""\b
Examples:
  make bench-replicas
  python -m benchmarks.replicas --workers 1,4 --policy lmetric --conversations 400 --json rows.json"""
)
@click.option("--workers", default="1,2,4,8", show_default=True, help="Numbers of workers, with commas.")
@click.option("--policy", "names", type=click.Choice(list(POLICIES)), multiple=True,
              help="One of the policies; may be repeated. Default: all.")  # fmt: skip
@click.option("--conversations", default=Shape().conversations, show_default=True,
              help="Length of the trace.")  # fmt: skip
@click.option("--rate", default=Shape().rate, show_default=True, help="Requests per second.")
@click.option("--bursts", default=10, show_default=True, help="Bursts of 16 equal prompts after the trace.")
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Keep the rows here.")
def main(
    workers: str,
    names: tuple[str, ...],
    conversations: int,
    rate: float,
    bursts: int,
    seed: int,
    file: Path | None,
) -> None:
    """Play one trace through growing numbers of real workers and compare what comes of it."""
    counts = [int(count) for count in workers.split(",")]
    policies = {name: POLICIES[name] for name in names or POLICIES}
    shape = Shape(conversations=conversations, rate=rate)

    async def run() -> None:
        rows = []
        async for found in measure(policies, counts, shape, bursts, seed):
            click.echo(
                f"{found.policy} with {found.workers} workers: hit rate {found.hit_rate:.1%}", err=True
            )
            rows.append(found)
        rows.sort(key=lambda row: (list(policies).index(row.policy), row.workers))
        click.echo(table(rows))
        if file is not None:
            write_json(rows, file)

    uvloop.run(run())


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.replicas")
