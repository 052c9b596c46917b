"""The bytes of one file -> plain documents, bounded in size, depth and expansion.

YAML is scanned as a stream of events before it is loaded: that finds what the loader would take silently
(duplicate keys), could not survive (deep nesting, aliases that expand without end) or has no use for (tags).
"""

import json
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 4 * 2**20
"""Largest file."""

MAX_DEPTH = 100
"""Deepest nesting; a Pod as Kubernetes prints it reaches about 15."""

MAX_VALUES = 500_000
"""Most values in a file, each alias counted as all it stands for."""


def documents(name: str, content: bytes) -> list[object]:
    """The documents of a file named `*.json` (JSON) or anything else (YAML), empty ones left out.

    Raises ValueError, saying what is wrong, on anything that is not well-formed and bounded.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES // 2**20} MiB; split it")
    if not content.strip():
        raise ValueError("is empty, as if half written; delete it, or keep a comment in it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}") from error
    loaded = _json(text) if name.endswith(".json") else _yaml(text)
    return [document for document in loaded if document is not None]


def _json(text: str) -> list[object]:
    try:
        return [json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)]
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r:.60} is given twice in one object")
    return built


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _yaml(text: str) -> list[object]:
    try:
        scan = _Scan()
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            scan.see(event)
        return list(yaml.load_all(text, Loader=_Loader))
    except RecursionError:
        raise ValueError("is nested too deeply through its merge keys") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"is not valid YAML: {' '.join(str(error).split())}") from error


class _Loader(yaml.CSafeLoader):
    """YAML's plain types, except that a time stays a string, as in JSON and Kubernetes."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been seen."""

    anchor: str | None
    keys: set[str] | None
    """The scalar keys so far; None for a list."""
    values: int = 1
    at_key: bool = True


@dataclass(slots=True)
class _Scan:
    """Looks at each event of a YAML stream once; raises ValueError at the first it does not accept."""

    open: list[_Open] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)
    """Finished anchors and how many values each stands for."""
    values: int = 0

    def see(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        match event:
            case yaml.DocumentStartEvent():
                self.anchors.clear()
            case yaml.AliasEvent():
                if event.anchor not in self.anchors:
                    raise ValueError(f"line {line}: alias *{event.anchor} has no anchor before it")
                self._child(self.anchors[event.anchor], line)
            case yaml.ScalarEvent():
                self._scalar(event, line)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                _no_tag(event, line)
                if len(self.open) >= MAX_DEPTH:
                    raise ValueError(f"line {line}: nested deeper than {MAX_DEPTH} levels")
                keys: set[str] | None = set() if isinstance(event, yaml.MappingStartEvent) else None
                self.open.append(_Open(event.anchor, keys))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                done = self.open.pop()
                self._remember(done.anchor, done.values)
                self._child(done.values, line)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        _no_tag(event, line)
        inside = self.open[-1] if self.open else None
        if inside is not None and inside.keys is not None and inside.at_key:
            if event.value in inside.keys:
                raise ValueError(f"line {line}: key {event.value!r:.60} is given twice in one mapping")
            inside.keys.add(event.value)
        self._remember(event.anchor, 1)
        self._child(1, line)

    def _child(self, values: int, line: int) -> None:
        """Count a finished value, into the list or mapping that holds it."""
        if not self.open:
            self.values += values
            return
        inside = self.open[-1]
        inside.values += values
        inside.at_key = not inside.at_key
        if self.values + inside.values > MAX_VALUES:
            raise ValueError(f"line {line}: more than {MAX_VALUES} values, aliases counted in full")

    def _remember(self, anchor: str | None, values: int) -> None:
        if anchor is not None:
            self.anchors[anchor] = values


def _no_tag(event: yaml.NodeEvent, line: int) -> None:
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise ValueError(f"line {line}: tag {tag!r:.60} has no meaning in a manifest; remove it")
