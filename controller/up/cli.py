"""The verb `kvoy up`; it imports only click, what it runs is imported when it runs."""

from pathlib import Path

import click

HOW_TO_START = """-f DIR is missing: the directory that says what to route where. To try it,
in a checkout of kvoy:

  kvoy up -f examples/quickstart

DIR holds YAML files in Kubernetes' format: ModelRoutes (which requests go where), ModelServers (pools of
engines that serve one model) and Pods (one per engine, with its address under status.podIP)."""


@click.command(
    epilog="""\b
Examples:
  kvoy up -f examples/quickstart                        in a checkout of kvoy
  kvoy up -f manifests --port 0 --admin-port 0          any free ports
  kvoy up -f manifests --redis redis://localhost:6379   a Redis or Valkey that runs already

The line "kvoy is ready: http://HOST:PORT (...)" goes to standard output, the log to standard error."""
)
@click.option("-f", "manifests", metavar="DIR",
              type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path),
              help="Directory of manifests; edits take effect at once.")  # fmt: skip
@click.option("--redis", metavar="URL", envvar="KVOY_REDIS", show_envvar=True,
              help="redis://, rediss:// or unix:// URL of the state; without it, an own Valkey.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True,
              help="IP address on which Envoy takes requests.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port on which Envoy takes requests; 0: any free one.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True,
              help="ext_proc processes; each decides on one CPU core.")  # fmt: skip
@click.option("--admin-port", type=click.IntRange(0, 65535), default=9190, show_default=True,
              help="Port on 127.0.0.1 of worker 0's admin endpoint; worker i: PORT + i; collector: PORT - 1; "
                   "0: any.")  # fmt: skip
@click.option("--group", default="default", show_default=True,
              help="Deployment group: which keys in Redis are ours.")  # fmt: skip
@click.option("--decision-header", is_flag=True,
              help="Tell clients why that pod was chosen: response header x-kvoy-decision.")  # fmt: skip
@click.option("--tokenizers", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="One directory per model with its tokenizer.json: for exact cache matching.")  # fmt: skip
def up(
    manifests: Path | None,
    redis: str | None,
    host: str,
    port: int,
    workers: int,
    admin_port: int,
    group: str,
    decision_header: bool,
    tokenizers: Path | None,
) -> None:
    """Run everything on this machine: Valkey, controller, collector, workers and Envoy, until Ctrl-C."""
    if manifests is None:
        raise click.UsageError(HOW_TO_START)
    import uvloop

    from controller.up.run import NoBootstrap, run, unreachable
    from controller.up.settings import Settings
    from extproc.supervise import Address, blaming, check_group, claim, claim_addresses, ip, redis_url

    if redis is not None:
        with blaming("--redis"):
            redis_url.check(redis)
        why = uvloop.run(unreachable(redis))
        if why:
            click.echo(f"--redis {redis_url.shown(redis)}: {why}; kvoy keeps trying", err=True)
    with blaming("--group"):
        check_group(group)
    with blaming("--host"):
        host = ip(host)
    with blaming("--port"):
        listen = str(Address(host, claim(host, port)[0]))
    with blaming("--admin-port"):
        admin = claim_addresses(f"127.0.0.1:{admin_port}", workers)
        (collector,) = claim_addresses(f"127.0.0.1:{max(0, admin_port - 1)}", 1)
    settings = Settings(
        manifests.absolute(),
        listen,
        admin,
        collector,
        group,
        redis,
        decision_header,
        None if tokenizers is None else tokenizers.absolute(),
    )
    try:
        uvloop.run(run(settings))
    except NoBootstrap as error:
        raise click.ClickException(f"`kvoy bootstrap` failed: {error}") from None
