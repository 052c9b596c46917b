"""``python -m extproc.collect``: one collector."""

import click
import uvloop
from prometheus_client import disable_created_metrics

from extproc.collect import app
from extproc.collect.settings import Settings
from extproc.supervise import plain_logging


@click.command(name="python -m extproc.collect")
@click.option("--redis", "redis_url", required=True, envvar="KVOY_REDIS", show_envvar=True,
              help="redis://, rediss:// or unix:// URL of the state.")  # fmt: skip
@click.option("--group", default="default", show_default=True, help="Deployment group: which keys are ours.")
@click.option("--admin", default="127.0.0.1:9180", show_default=True, help="HOST:PORT of the admin endpoint.")
@click.option("--interval", "interval_s", type=click.FloatRange(min=0.1), default=1.0, show_default=True,
              help="Seconds between two looks at a pod.")  # fmt: skip
def main(redis_url: str, group: str, admin: str, interval_s: float) -> None:
    """Run one collector. `kvoy collector` keeps one running; `kvoy up` runs everything."""
    plain_logging()
    # Prometheus has no use for them, and they double the exposition.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    uvloop.run(app.run(Settings(redis_url, group, admin, interval_s)))


if __name__ == "__main__":
    main()
