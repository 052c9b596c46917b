"""Writes docs/reference.md from the code, so that the page cannot say anything else: `make docs`."""

import ast
import inspect
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from controller.manifests.annotations import ANNOTATIONS
from controller.manifests.unsupported import REFUSED
from controller.xds.local_replies import REPLIES
from extproc.admin import PATHS
from extproc.metrics import GAUGES, Gauges, Metrics
from extproc.rejection import REASONS
from extproc.state import envoy, keys

PAGE = Path(__file__).parent / "reference.md"

_INTRODUCTION = """\
# Reference

Every error, header, metadata key, annotation, metric, admin path and Redis key of kvoy. This page is
generated from the code (`make docs`); a test compares.
"""


def page() -> str:
    """The whole page."""
    sections = (_errors, _headers, _annotations, _refused, _metrics, _admin, _redis)
    return "\n".join([_INTRODUCTION, *(section() for section in sections)])


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
        "What Envoy, the controller and the workers say to each other. Envoy removes client copies of the "
        "request headers before it reads them.",
        ("name", "constant", "meaning"),
        rows,
    )


def _annotations() -> str:
    rows = [(f"`{name}`", kind, text) for kind, known in ANNOTATIONS.items() for name, text in known.items()]
    return _section("Annotations", "", ("annotation", "on", "meaning"), rows)


def _refused() -> str:
    rows = [(f"`{field}`", kind, text) for kind, fields in REFUSED.items() for field, text in fields.items()]
    return _section(
        "Fields that are refused",
        "Fields of the API without an effect yet: a manifest that sets one is an error, it is never ignored.",
        ("field", "of", "what to do"),
        rows,
    )


def _metrics() -> str:
    metrics = Metrics()
    gauges = CollectorRegistry()
    gauges.register(Gauges(lambda: dict.fromkeys(GAUGES, 0.0), dict))
    families = [*metrics.registry.collect(), *gauges.collect()]
    rows = [
        (f"`{f.name}_total`" if f.type == "counter" else f"`{f.name}`", f.type, f.documentation)
        for f in families
    ]
    return _section("Metrics", "Of each worker, at `/metrics`.", ("metric", "type", "meaning"), sorted(rows))


def _admin() -> str:
    rows = [(f"`GET {path}`", text) for path, text in PATHS.items()]
    return _section("Admin endpoint", "Of each worker.", ("path", "answer"), rows)


def _redis() -> str:
    rows = [
        (f"`{_example(function)}`", inspect.getdoc(function) or "")
        for function in vars(keys).values()
        if inspect.isfunction(function)
    ]
    return _section(
        "Redis keys", "`GROUP` is the deployment group (`--group`).", ("key", "type and content"), rows
    )


def _example(function: Callable[..., str]) -> str:
    return function(**{name: name.upper() for name in inspect.signature(function).parameters})


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


def _section(title: str, text: str, header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"## {title}", "", *([text, ""] if text else [])]
    lines += [_row(header), _row("---" for _ in header)]
    lines += [_row(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join([*lines, ""])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
