"""The verbs `kvoy controller` and `kvoy bootstrap`; only click is imported until one of them runs."""

from pathlib import Path

import click


@click.command(
    epilog="""\b
Examples:
  kvoy controller --check -f manifests
  kvoy controller -f manifests --redis redis://state:6379 --xds-socket /run/kvoy/xds.sock \\
      --extproc extproc-0=/run/kvoy/extproc-0.sock --extproc extproc-1=/run/kvoy/extproc-1.sock

Edits take effect at once, and only together: while one manifest has a problem, the last good ones stay in
force."""
)
@click.option("-f", "manifests", metavar="DIR", required=True,
              type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path),
              help="Directory of manifests: *.yaml, *.yml and *.json, in sub-directories too.")  # fmt: skip
@click.option("--check", is_flag=True,
              help="Print every problem of the manifests and exit: 0 without any, else 1.")  # fmt: skip
@click.option("--redis", metavar="URL", envvar="KVOY_REDIS", show_envvar=True,
              help="redis://, rediss:// or unix:// URL of the state.")  # fmt: skip
@click.option("--group", default="default", show_default=True, help="Deployment group: which keys are ours.")
@click.option("--xds-socket", metavar="PATH", help="Unix socket on which Envoy gets its configuration.")
@click.option("--listen", metavar="IP:PORT", default="127.0.0.1:8080", show_default=True,
              help="Where Envoy takes requests.")  # fmt: skip
@click.option("--extproc", metavar="NAME=SOCKET", multiple=True,
              help="An ext_proc worker: its name and Unix socket. Once per worker.")  # fmt: skip
@click.option("--body-limit", metavar="SIZE", default="16MiB", show_default=True,
              help="Largest request body; Envoy answers a larger one with 413.")  # fmt: skip
@click.option("--decision-header", is_flag=True,
              help="Tell clients why that pod was chosen: response header x-kvoy-decision.")  # fmt: skip
@click.pass_context
def controller(
    ctx: click.Context,
    manifests: Path,
    check: bool,
    redis: str | None,
    group: str,
    xds_socket: str | None,
    listen: str,
    extproc: tuple[str, ...],
    body_limit: str,
    decision_header: bool,
) -> None:
    """Compile manifests, publish them to the workers and configure Envoy; follow every edit."""
    if check:
        ctx.exit(_check(manifests))
    if redis is None or xds_socket is None or not extproc:
        raise click.UsageError("without --check, --redis, --xds-socket and at least one --extproc are needed")
    import uvloop

    from controller import app, settings
    from extproc.supervise import Address, blaming, check_group, redis_url

    with blaming("--redis"):
        redis_url.check(redis)
    with blaming("--listen"):
        listen = str(Address.of_ip(listen))
    with blaming("--group"):
        check_group(group)
    with blaming("--xds-socket"):
        xds_socket = settings.socket(xds_socket)
    with blaming("--extproc"):
        workers = settings.workers(extproc)
    with blaming("--body-limit"):
        body_limit_bytes = settings.size(body_limit)
    app.configure_logging()
    chosen = settings.Settings(
        manifests, redis, group, xds_socket, listen, workers, body_limit_bytes, decision_header
    )
    uvloop.run(app.run(chosen))


def _check(manifests: Path) -> int:
    """Print what is wrong, or what there is; the exit status."""
    from controller.follow import compile_tree, counted
    from controller.manifests.reader import Reader
    from controller.source import Directory

    found = compile_tree(Reader(), Directory(manifests).read())
    if found.skipped:
        click.echo(f"skipped, as kvoy does not read these kinds: {counted(found.skipped)}", err=True)
    for note in found.notes:
        click.echo(note, err=True)
    for problem in found.problems:
        click.echo(str(problem))
    if found.problems:
        return 1
    kinds = counted(tuple(type(record).__name__ for record in found.records.values()))
    click.echo(f"{manifests}: valid: {kinds or 'no objects'}")
    return 0


@click.command(
    epilog="""\b
Example:
  kvoy bootstrap --xds-socket /run/kvoy/xds.sock > bootstrap.json && envoy -c bootstrap.json"""
)
@click.option("--xds-socket", metavar="PATH", required=True, help="The controller's Unix socket.")
@click.option("--node-id", default="kvoy", show_default=True,
              help="What this Envoy calls itself towards the controller.")  # fmt: skip
@click.option("--admin", metavar="ADDRESS", default="127.0.0.1:9901", show_default=True,
              help="IP:PORT or unix:PATH of Envoy's admin interface.")  # fmt: skip
def bootstrap(xds_socket: str, node_id: str, admin: str) -> None:
    """Print the configuration with which Envoy starts and finds the controller."""
    from controller.xds.bootstrap import bootstrap as written
    from extproc.supervise import blaming, socket_path

    with blaming("--xds-socket"):
        xds_socket = socket_path(Path(xds_socket))
    with blaming("--admin"):
        text = written(xds_socket=xds_socket, node_id=node_id, admin=admin)
    click.echo(text)
