"""``python -m extproc``: one worker."""

from pathlib import Path

import click
import uvloop
from prometheus_client import disable_created_metrics

from extproc import app
from extproc.settings import Settings
from extproc.supervise import plain_logging


@click.command(name="python -m extproc")
@click.option("--name", required=True, help="Worker name as in Envoy's configuration, e.g. extproc-0.")
@click.option("--socket", required=True, help="Unix socket for ext_proc and access logs.")
@click.option("--redis", "redis_url", required=True, envvar="KVOY_REDIS", show_envvar=True,
              help="redis://, rediss:// or unix:// URL of the state.")  # fmt: skip
@click.option("--group", default="default", show_default=True, help="Deployment group: which keys are ours.")
@click.option("--admin", default="127.0.0.1:9190", show_default=True, help="HOST:PORT of the admin endpoint.")
@click.option("--body-limit", type=click.IntRange(min=1), default=16 * 2**20, show_default=True,
              help="Largest body in full duplex mode, in bytes.")  # fmt: skip
@click.option("--drain", "drain_s", type=click.FloatRange(min=0), default=5.0, show_default=True,
              help="Seconds that decisions in progress get when the worker stops.")  # fmt: skip
@click.option("--tokenizers", type=click.Path(file_okay=False, path_type=Path),
              help="Directory with one tokeniser per model.")  # fmt: skip
def main(
    name: str,
    socket: str,
    redis_url: str,
    group: str,
    admin: str,
    body_limit: int,
    drain_s: float,
    tokenizers: Path | None,
) -> None:
    """Run one ext_proc worker. `kvoy extproc` runs several; `kvoy up` runs everything."""
    plain_logging()
    # Prometheus has no use for them, and they double the exposition.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    uvloop.run(app.run(Settings(name, socket, redis_url, group, admin, body_limit, drain_s, tokenizers)))


if __name__ == "__main__":
    main()
