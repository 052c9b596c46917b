"""The command `kvoy` and its verb `extproc`.

The other verbs come from the entry-point group `kvoy.commands` and are imported when they are named, so the
services stay apart and a missing extra is a plain error of one verb. The module of a verb imports only click;
what it runs is imported when it runs, which keeps ``kvoy --help`` fast.
"""

from contextlib import nullcontext
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

import click

VERBS = "kvoy.commands"
EXTRAS = {"bootstrap": "controller", "explain": "extproc", "route": "extproc"}
"""Verb to the extra that installs what it needs, where it is not called like the verb."""
OWN_PACKAGES = ("extproc", "controller")


class Verbs(click.Group):
    """A group whose commands are the entry points of `VERBS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(entry_points(group=VERBS).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group=VERBS, name=cmd_name):
            try:
                return cast(click.Command, entry.load())
            except ModuleNotFoundError as missing:
                return _placeholder(cmd_name, missing)
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """As a group does; what a verb cannot import becomes the name of the extra that installs it."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as missing:
            package = (missing.name or "").partition(".")[0]
            if package in OWN_PACKAGES or ctx.invoked_subcommand is None:
                raise
            verb = ctx.invoked_subcommand
            raise click.ClickException(
                f"`kvoy {verb}` needs {package}, which the extra installs: pip install '{_extra(verb)}'"
            ) from None


def _placeholder(verb: str, missing: ModuleNotFoundError) -> click.Command:
    """Stands for a verb that cannot be imported; any use of it fails as the import did."""

    def fail(**_: Any) -> None:
        raise missing

    return click.Command(
        verb,
        callback=fail,
        params=[click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        add_help_option=False,
        short_help=f"(not installed: pip install '{_extra(verb)}')",
    )


def _extra(verb: str) -> str:
    return f"kvoy[{EXTRAS.get(verb, verb)}]"


@click.command(
    cls=Verbs,
    epilog="""\b
Examples:
  kvoy up -f manifests                 everything on this machine, until Ctrl-C
  kvoy controller --check -f manifests what is wrong with these manifests
  kvoy VERB --help                     the options of one part

The directory holds your ModelRoutes, ModelServers and Pods. A checkout of kvoy has one to start with:
examples/quickstart. A service also runs on its own: `kvoy controller`, `kvoy extproc`,
`kvoy collector`.""",
)
@click.version_option(package_name="kvoy", message="kvoy %(version)s")
def main() -> None:
    """Route LLM requests through Envoy to the engine that serves them best."""


@click.command(
    epilog="""\b
Example:
  kvoy extproc --workers 4 --socket-dir /run/kvoy --redis redis://state:6379"""
)
@click.option("--workers", "count", type=click.IntRange(1, 256), default=2, show_default=True,
              help="Processes; each decides on one CPU core.")  # fmt: skip
@click.option("--socket-dir", type=click.Path(file_okay=False, path_type=Path), required=True,
              help="Where worker i puts its Unix socket: extproc-<i>.sock.")  # fmt: skip
@click.option("--redis", required=True, envvar="KVOY_REDIS", show_envvar=True,
              help="redis://, rediss:// or unix:// URL of the state.")  # fmt: skip
@click.option("--group", default="default", show_default=True, help="Deployment group: which keys are ours.")
@click.option("--admin", default="127.0.0.1:9190", show_default=True,
              help="IP:PORT of worker 0's admin endpoint; worker i has PORT + i, 0: any.")  # fmt: skip
@click.option("--tokenizers", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="One directory per model with its tokenizer.json: for exact cache matching.")  # fmt: skip
def extproc(
    count: int, socket_dir: Path, redis: str, group: str, admin: str, tokenizers: Path | None
) -> None:
    """Run the ext_proc workers of one host and keep them running."""
    import aiohttp  # noqa: F401  (what a worker needs: missing here, it names the extra to install)
    import grpc  # noqa: F401
    import uvloop

    from extproc import supervise

    with supervise.blaming("--redis"):
        supervise.redis_url.check(redis)
    with supervise.blaming("--group"):
        supervise.check_group(group)
    with supervise.blaming("--admin"):
        addresses = supervise.claim_addresses(admin, count)
    with supervise.blaming("--socket-dir"):
        state = f"Redis at {supervise.redis_url.shown(redis)}"
        children = supervise.workers(
            socket_dir.resolve(),
            addresses,
            redis=redis,
            group=group,
            hint=f"it needs {state} and in it a configuration from `kvoy controller`",
            tokenizers=None if tokenizers is None else tokenizers.resolve(),
        )
        socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    urls = ", ".join(f"http://{address}" for address in addresses)
    noun = "worker" if count == 1 else "workers"
    ready = f"kvoy extproc is ready: {count} {noun} in {socket_dir} (admin {urls}; Ctrl-C stops it)"
    uvloop.run(supervise.keep_running(children, ready, nullcontext()))


if __name__ == "__main__":
    main()
