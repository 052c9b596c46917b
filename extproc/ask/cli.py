"""The verbs `kvoy explain` and `kvoy route`; only click is imported until one of them runs."""

import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

if TYPE_CHECKING:
    from extproc.supervise import Address

LARGEST_BODY = 16 * 2**20
_WIDTH_OF_A_FILE = 160
"""Columns where the output is no terminal."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _admin(command: _Command) -> _Command:
    return click.option(
        "--admin", metavar="IP:PORT", multiple=True, envvar="KVOY_ADMIN", show_envvar=True,
        help="Admin endpoint of a worker; repeatable (in the variable, spaces between). Without it: "
             "127.0.0.1:9190 and the ports after it, as far as somebody listens.",
    )(command)  # fmt: skip


def _as_json(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print the worker's answer as JSON.")(command)


@click.command(
    epilog="""\b
Examples:
  kvoy explain 3772364e-6db6-4012-84fd-1738dd207241
  kvoy explain 3772364e-6db6-4012-84fd-1738dd207241 --admin 10.0.0.7:9190 --admin 10.0.0.7:9191 --json

The id is in the response header x-request-id. Exit status 1: no worker knows it."""
)
@click.argument("request_id")
@_admin
@_as_json
def explain(request_id: str, admin: tuple[str, ...], as_json: bool) -> None:
    """Tell why a request went where it went, and how it ended."""
    import uvloop

    from extproc.ask import questions, workers

    answers = uvloop.run(workers.ask(_addresses(admin), questions.why(request_id)))
    _print(_unless_unanswered(lambda: questions.decision_on(request_id, answers)), as_json)


@click.command(
    epilog="""\b
Examples:
  kvoy route -f request.json
  kvoy route -f request.json --headers 'user-type: premium' --path /v1/completions
  echo '{"model": "m", "messages": []}' | kvoy route -f -

Exit status 1: the client would get an error, or no worker answered."""
)
@click.option("-f", "file", metavar="FILE", type=click.File("rb"), required=True,
              help="The request's body, JSON; - reads standard input.")  # fmt: skip
@click.option("--headers", metavar="'NAME: VALUE'", multiple=True, help="A request header; repeatable.")
@click.option("--path", default="/v1/chat/completions", show_default=True, help="Path of the request.")
@_admin
@_as_json
@click.pass_context
def route(
    ctx: click.Context,
    file: BinaryIO,
    headers: tuple[str, ...],
    path: str,
    admin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Tell what would happen to a request now. Nothing is sent to an engine, counted or remembered."""
    import uvloop

    from extproc.ask import questions, workers
    from extproc.supervise import blaming

    with blaming("-f"):
        body = _read(file)
    with blaming("--headers"):
        named = dict(_header(text) for text in reversed(headers))
    with blaming("-f"):
        question = questions.what_if(path, named, body)
    answers = uvloop.run(workers.ask_any(_addresses(admin), question))
    told = _unless_unanswered(lambda: questions.preview(answers))
    _print(told, as_json)
    if told.get("status", 200) != 200:
        ctx.exit(1)


def _addresses(texts: tuple[str, ...]) -> "tuple[Address, ...]":
    """As written, or as `kvoy up` prints them: ``http://IP:PORT``."""
    from extproc.supervise import Address, blaming

    with blaming("--admin"):
        return tuple(Address.parse(text.removeprefix("http://").rstrip("/")) for text in texts)


def _read(file: BinaryIO) -> bytes:
    body = file.read(LARGEST_BODY + 1)
    if len(body) > LARGEST_BODY:
        raise ValueError(f"the body is larger than {LARGEST_BODY // 2**20} MiB")
    return body


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"{text!r} is not NAME: VALUE, as in 'user-type: premium'")
    return name.strip().lower(), value.strip()


def _unless_unanswered(found: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    from extproc.ask.questions import Unanswered

    try:
        return found()
    except Unanswered as error:
        raise click.ClickException(str(error)) from None


def _print(told: Mapping[str, Any], as_json: bool) -> None:
    import json

    import msgspec

    from extproc.ask.decision import Decision
    from extproc.ask.report import report

    if as_json:
        # Escapes whatever could steer a terminal.
        click.echo(json.dumps(told, indent=2))
        return
    try:
        decision = msgspec.convert(told, Decision)
    except msgspec.ValidationError as error:
        raise click.ClickException(f"this worker is of another version than this command: {error}") from None
    width = shutil.get_terminal_size((_WIDTH_OF_A_FILE, 24)).columns
    for line in report(decision, width):
        click.echo(line)
