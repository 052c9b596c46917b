"""Files -> objects and problems. Files that did not change since the last reading are not parsed again."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from controller.manifests import scheduler
from controller.manifests.kinds import KINDS, Object
from controller.manifests.metadata import is_object_name
from controller.manifests.problem import Fault, Problem
from controller.manifests.shape import convert, quoted
from controller.manifests.text import documents
from controller.manifests.unsupported import REFUSED

_SCHEDULER = "Scheduler"
"""Label of the scheduler configuration."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object of a kind that kvoy reads, or the scheduler configuration."""

    file: str
    kind: str
    namespace: str
    name: str
    view: Object | scheduler.SchedulerFile | None
    """None if the object has problems: it is declared all the same, and others may refer to it."""

    @property
    def label(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.name else self.kind


@dataclass(frozen=True, slots=True)
class Reading:
    """What a set of files holds, in order of file name and position."""

    objects: tuple[Found, ...] = ()
    problems: tuple[Problem, ...] = ()
    skipped: tuple[str, ...] = ()
    """``kind (apiVersion)`` of each object of a kind that kvoy does not read."""

    @property
    def complete(self) -> bool:
        """Whether every object could at least be named: if not, an object that seems missing may exist."""
        return all(problem.object for problem in self.problems)


class Reader:
    """Reads the same directory again and again."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[bytes, Reading]] = {}

    def read(self, files: Mapping[str, bytes], unread: tuple[Problem, ...] = ()) -> Reading:
        """What the files (relative path to content) hold; `unread` is what kept others from being read."""
        self._last = {name: (files[name], self._one(name, files[name])) for name in sorted(files)}
        return _joined((Reading(problems=unread), *(reading for _, reading in self._last.values())))

    def _one(self, name: str, content: bytes) -> Reading:
        before = self._last.get(name)
        return before[1] if before is not None and before[0] == content else read_file(name, content)


def read_file(name: str, content: bytes) -> Reading:
    """What one file holds."""
    try:
        found = documents(name, content)
    except ValueError as error:
        return Reading(problems=(Problem(name, "", "", str(error)),))
    return _joined(
        _document(name, one, place)
        for at, document in enumerate(found, 1)
        for one, place in _unlisted(document, f"document {at}")
    )


def _joined(readings: Iterable[Reading]) -> Reading:
    each = list(readings)
    return Reading(
        tuple(chain.from_iterable(one.objects for one in each)),
        tuple(chain.from_iterable(one.problems for one in each)),
        tuple(chain.from_iterable(one.skipped for one in each)),
    )


def _document(file: str, document: object, place: str) -> Reading:
    if not isinstance(document, dict):
        return _nameless(file, place, f"expected an object, got {quoted(document)}")
    if scheduler.is_scheduler(document):
        return _scheduler(file, *scheduler.read(document))
    version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        return _nameless(file, place, "apiVersion and kind are missing; every manifest has them")
    router = _router_configuration(version, kind, document)
    if router is not None:
        return _scheduler(file, *scheduler.read_text(router), "data.routerConfiguration")
    view = KINDS.get((version, kind))
    if view is None:
        return Reading(skipped=(f"{quoted(kind)[1:-1]} ({quoted(version)[1:-1]})",))
    return _object(file, kind, view, document, place)


def _router_configuration(version: str, kind: str, document: Mapping[object, object]) -> str | None:
    """The text of Kthena's scheduler configuration, if this is the ConfigMap in which its chart ships it."""
    match version, kind, document.get("data"):
        case "v1", "ConfigMap", {"routerConfiguration": str(text)}:
            return text
    return None


def _scheduler(
    file: str, view: scheduler.SchedulerFile | None, faults: tuple[Fault, ...], within: str = ""
) -> Reading:
    """There is one for all ModelServers, so it has no name of its own."""
    found = Found(file, _SCHEDULER, "", "", None if faults else view)
    problems = tuple(
        Problem(file, _SCHEDULER, ": ".join(filter(None, (within, fault.field))), fault.message)
        for fault in faults
    )
    return Reading((found,), problems)


def _nameless(file: str, place: str, message: str) -> Reading:
    return Reading(problems=(Problem(file, "", place, message),))


def _unlisted(document: object, place: str) -> Iterator[tuple[object, str]]:
    """The document, or if it is a List (or a PodList, …) what it lists; with its place in the file."""
    kind = document.get("kind") if isinstance(document, dict) else None
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(kind, str) or not isinstance(items, list) or not kind.endswith("List"):
        yield document, place
        return
    inherited = _inherited(document, kind)
    for at, item in enumerate(items):
        yield inherited | item if isinstance(item, dict) else item, f"{place}, items[{at}]"


def _inherited(document: Any, kind: str) -> dict[object, object]:
    """What the items of a PodList need not say themselves; those of a plain List must."""
    if kind == "List":
        return {}
    return {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List")}


def _object(file: str, kind: str, view: type[Object], document: dict[object, object], place: str) -> Reading:
    built, faults = convert(document, view, REFUSED[kind])
    if built is not None:
        faults = (*faults, *built.faults())
    namespace, name = _named(document)
    found = Found(file, kind, namespace, name, None if faults else built)
    label = found.label if name else f"{kind} ({place})"
    problems = tuple(Problem(file, label, fault.field, fault.message) for fault in faults)
    return Reading((found,) if name else (), problems)


def _named(document: Mapping[object, object]) -> tuple[str, str]:
    """Namespace and name as far as they can be read; an empty name if there is none."""
    match document.get("metadata"):
        case {"name": str(name), "namespace": str(namespace)}:
            return _safe(namespace), _safe(name)
        case {"name": str(name)}:
            return "default", _safe(name)
        case _:
            return "", ""


def _safe(name: str) -> str:
    return name if is_object_name(name) else quoted(name)
