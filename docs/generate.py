"""Writes docs/reference.md from the code, so that the page cannot say anything else: `make docs`."""

import ast
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import click
import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from controller.manifests.annotations import ANNOTATIONS
from controller.manifests.unsupported import REFUSED
from controller.xds.local_replies import REPLIES
from extproc import admin, control
from extproc.cli import main
from extproc.collect import admin as collect_admin
from extproc.collect.counters import Counters, Readings
from extproc.metrics import GAUGES, Gauges, Metrics
from extproc.rejection import REASONS
from extproc.schedule.catalogue import CATALOGUE, Entry
from extproc.schedule.plugin import Args
from extproc.state import envoy, keys, live

PAGE = Path(__file__).parent / "reference.md"

_INTRODUCTION = """\
# Reference

Every command, error, header, metadata key, annotation, scheduling plugin, metric, admin path, Redis key and
live statement of kvoy, and what it takes out of requests. This page is generated from the code (`make docs`);
a test compares.
"""


def page() -> str:
    """The whole page."""
    sections = (
        *(_commands, _errors, _headers, _control, _annotations, _plugins, _refused),
        *(_metrics, _admin, _redis, _statements),
    )
    return "\n".join([_INTRODUCTION, *(section() for section in sections)])


def _commands() -> str:
    context = click.Context(main)
    verbs = [main.get_command(context, name) for name in main.list_commands(context)]
    rows = [
        (f"`kvoy {verb.name}`", f"`{_spelt(parameter)}`", _default(parameter), _help(parameter))
        for verb in verbs
        if verb is not None
        for parameter in sorted(verb.params, key=lambda each: isinstance(each, click.Option))
    ]
    return _section(
        "Commands",
        "`kvoy VERB --help` tells the same, with examples.",
        ("command", "option", "default", "meaning"),
        rows,
    )


def _errors() -> str:
    own = [(reason, str(r.status), r.type, r.meaning) for reason, r in REASONS.items()]
    of_envoy = [(reason, ", ".join(map(str, r.statuses)), r.type, r.message) for reason, r in REPLIES.items()]
    return _section(
        "Errors",
        'Errors have OpenAI\'s shape, `{"error": {"message", "type", "param", "code"}}`, and name their '
        "cause in the header `x-kvoy-reason`. An engine's own errors pass through untouched and have no such "
        "header.",
        ("x-kvoy-reason", "status", "type", "meaning"),
        sorted(
            [(f"`{reason}`", *rest) for reason, *rest in {row[0]: row for row in of_envoy + own}.values()]
        ),
    )


def _headers() -> str:
    rows = [(f"`{value}`", name, text) for name, value, text in _documented_constants(envoy)]
    return _section(
        "Headers and metadata",
        "What Envoy, the controller and the workers say to each other. Client copies of the request headers "
        "are removed before anybody reads them; for the data-parallel rank see the next section.",
        ("name", "constant", "meaning"),
        rows,
    )


def _control() -> str:
    rows = [(f"`{name}`", "field of the body", text) for name, text in control.FIELDS.items()]
    rows += [(f"`{name}`", "header", text) for name, text in control.HEADERS.items()]
    return _section(
        "What clients may not send",
        "It would steer engines past kvoy, and is taken out of each request unless `kvoy.io/client-control` "
        "of the ModelServer is `keep`; the fields even then where prefill and decode are apart.",
        ("name", "is", "meaning"),
        rows,
    )


def _annotations() -> str:
    rows = [(f"`{name}`", kind, text) for kind, known in ANNOTATIONS.items() for name, text in known.items()]
    return _section("Annotations", "", ("annotation", "on", "meaning"), rows)


def _plugins() -> str:
    rows = [row for name, entry in CATALOGUE.items() for row in _plugin(name, entry)]
    return _section(
        "Scheduling plugins",
        "What they do with these figures: [Which endpoint](scheduling.md#plugins).",
        ("plugin", "as", "chooses", "argument", "values", "default", "meaning"),
        rows,
    )


def _plugin(name: str, entry: Entry) -> Iterator[tuple[str, ...]]:
    """A row per argument, or one."""
    kinds = [kind for kind, found in (("Filter", entry.screen), ("Score", entry.scorer)) if found]
    module = sys.modules[(entry.scorer or entry.screen).__module__]
    purpose = (inspect.getdoc(module) or "").splitlines()[0].partition(": ")[2].rstrip(".")
    plugin = (f"`{name}`", ", ".join(kinds), purpose)
    arguments = list(_arguments(entry.args)) or [("", "", "", "")]
    yield (*plugin, *arguments[0])
    for argument in arguments[1:]:
        yield ("", "", "", *argument)


def _arguments(args: type[Args]) -> Iterator[tuple[str, str, str, str]]:
    schema = msgspec.json.schema(args)["$defs"][args.__name__]["properties"]
    fields = msgspec.structs.fields(args)
    texts = _documented_fields(args)
    for field in fields:
        shown = "" if field.default is None else f"`{msgspec.json.encode(field.default).decode()}`"
        text = texts[field.name] or (
            inspect.getdoc(args) or "" if len(fields) == 1 else _refusal(args, field)
        )
        for other in fields:
            text = text.replace(f"`{other.name}`", f"`{other.encode_name}`")
        yield f"`{field.encode_name}`", _values(schema[field.encode_name]), shown, text


def _values(schema: Mapping[str, Any]) -> str:
    """What an argument may be, from its JSON schema."""
    known = next((each for each in schema.get("anyOf", [schema]) if each["type"] != "null"), schema)
    least, most = known.get("minimum"), known.get("maximum")
    limits = "" if least is None else f", {least} to {most}"
    return f"{known['type']}{limits}"


def _refusal(args: type[Args], field: msgspec.structs.FieldInfo) -> str:
    """Why another value than the default is refused."""
    faults = args(**{field.name: field.default + 1}).faults()
    return "; ".join(
        message[:1].upper() + message[1:] for name, message in faults if name == field.encode_name
    )


def _refused() -> str:
    rows = [(f"`{field}`", kind, text) for kind, fields in REFUSED.items() for field, text in fields.items()]
    return _section(
        "Fields that are refused",
        "Fields of the API without an effect yet: a manifest that sets one is an error, it is never ignored.",
        ("field", "of", "what to do"),
        rows,
    )


def _metrics() -> str:
    worker = (Metrics().registry, Gauges(lambda: dict.fromkeys(GAUGES, 0.0), dict))
    collector = (Counters().registry, Readings(lambda: defaultdict(float)))
    rows = [
        (f"`{f.name}_total`" if f.type == "counter" else f"`{f.name}`", of, f.type, f.documentation)
        for of, (counted, read) in (("worker", worker), ("collector", collector))
        for f in (*counted.collect(), *_registered(read).collect())
    ]
    text = "At `/metrics` of the admin endpoints."
    return _section("Metrics", text, ("metric", "of", "type", "meaning"), sorted(rows))


def _registered(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def _admin() -> str:
    rows = [(f"`{path}`", "worker", text) for path, text in admin.PATHS.items()]
    rows += [(f"`GET {path}`", "collector", text) for path, text in collect_admin.PATHS.items()]
    return _section("Admin endpoints", "", ("path", "of", "answer"), rows)


def _redis() -> str:
    rows = [
        (f"`{_example(function)}`", inspect.getdoc(function) or "")
        for function in vars(keys).values()
        if inspect.isfunction(function)
    ]
    return _section(
        "Redis keys", "`GROUP` is the deployment group (`--group`).", ("key", "type and content"), rows
    )


class _Number(int):
    """Stands for any number in a format string: it is written as its name."""

    name = ""

    def __format__(self, _: str) -> str:
        return self.name


def _example(function: Callable[..., str]) -> str:
    """The key with its parts in capitals."""
    return function(**dict(map(_placeholder, inspect.signature(function).parameters.values())))


def _placeholder(parameter: inspect.Parameter) -> tuple[str, object]:
    if parameter.annotation is not int:
        return parameter.name, parameter.name.upper()
    number = _Number()
    number.name = parameter.name.upper()
    return parameter.name, number


def _statements() -> str:
    rows = [
        (f"`{statement}`" if at == 0 else "", f"`{field}`", text)
        for statement, kind in (("in-flight", live.InFlight), ("engine", live.Engine), ("load", live.Load))
        for at, (field, text) in enumerate(_documented_fields(kind).items())
    ]
    return _section(
        "Live statements",
        "What travels on the live stream, several to an entry: `in-flight` from each worker, `engine` from "
        "the collectors, all of it repeated every second or so. A `load` is part of `in-flight`.",
        ("statement", "field", "meaning"),
        rows,
    )


def _documented_constants(module: Any) -> Iterable[tuple[str, str, str]]:
    """Name, value and docstring of each string constant of a module."""
    body = ast.parse(inspect.getsource(module)).body
    for node, text in pairwise(body):
        match node, text:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(value))),
                ast.Expr(value=ast.Constant(value=str(documentation))),
            ):
                yield name, value, " ".join(documentation.split())


def _documented_fields(kind: type) -> dict[str, str]:
    """Each field of a class and its docstring, "" where its name says it all."""
    (definition,) = ast.parse(dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for node, text in pairwise([*definition.body, None]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = ""
            match text:
                case ast.Expr(value=ast.Constant(value=str(documentation))):
                    found[node.target.id] = " ".join(documentation.split())
    return found


def _spelt(parameter: click.Parameter) -> str:
    if not isinstance(parameter, click.Option):
        return parameter.human_readable_name
    name = parameter.opts[-1]
    if parameter.is_flag:
        return name
    return f"{name} {parameter.metavar or parameter.type.name.removesuffix(' range').upper()}"


def _default(parameter: click.Parameter) -> str:
    variable = f"`${parameter.envvar}`" if isinstance(parameter.envvar, str) else ""
    if parameter.required:
        return f"needed, or {variable}" if variable else "needed"
    shown = isinstance(parameter, click.Option) and parameter.show_default
    return f"`{parameter.default}`" if shown else variable


def _help(parameter: click.Parameter) -> str:
    return parameter.help or "" if isinstance(parameter, click.Option) else ""


def _section(title: str, text: str, header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"## {title}", "", *([text, ""] if text else [])]
    lines += [_row(header), _row("---" for _ in header)]
    lines += [_row(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join([*lines, ""])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
