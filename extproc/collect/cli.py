"""The verb `kvoy collector`; it imports only click, what it runs is imported when it runs."""

from contextlib import nullcontext

import click


@click.command(
    epilog="""\b
Examples:
  kvoy collector --redis redis://state:6379
  kvoy collector --redis redis://state:6379 --admin 0.0.0.0:9189 --interval 0.5

Run as many as you like, on any hosts: they share the pods out among them, and when one is gone the others
have its pods within 5 seconds. What each sees is at http://IP:PORT/debug/state of its admin endpoint."""
)
@click.option("--redis", required=True, envvar="KVOY_REDIS", show_envvar=True,
              help="redis://, rediss:// or unix:// URL of the state.")  # fmt: skip
@click.option("--group", default="default", show_default=True, help="Deployment group: which keys are ours.")
@click.option("--admin", default="127.0.0.1:9189", show_default=True,
              help="IP:PORT of the admin endpoint; port 0: any.")  # fmt: skip
@click.option("--interval", type=click.FloatRange(min=0.1, max=60), default=1.0, show_default=True,
              help="Seconds between two looks at an engine.")  # fmt: skip
def collector(redis: str, group: str, admin: str, interval: float) -> None:
    """Run a collector, which reads the engines' metrics and KV events, and keep it running."""
    import aiohttp  # noqa: F401  (what a collector needs: missing here, it names the extra to install)
    import prometheus_client  # noqa: F401
    import uvloop

    from extproc import supervise
    from extproc.collect.kv import sockets  # noqa: F401

    with supervise.blaming("--redis"):
        supervise.redis_url.check(redis)
    with supervise.blaming("--group"):
        supervise.check_group(group)
    with supervise.blaming("--admin"):
        (address,) = supervise.claim_addresses(admin, 1)
    state = f"Redis at {supervise.redis_url.shown(redis)}"
    child = supervise.collector(
        address,
        redis=redis,
        group=group,
        interval_s=interval,
        hint=f"it needs {state} and in it a configuration from `kvoy controller`",
    )
    ready = f"kvoy collector is ready: admin http://{address} (Ctrl-C stops it)"
    uvloop.run(supervise.keep_running((child,), ready, nullcontext()))
