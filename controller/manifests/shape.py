"""A plain value (what YAML and JSON give) -> a typed view, reporting every fault with its field path.

Views are msgspec Structs: their types and constraints are the schema. A field that is null counts as absent,
as in Kubernetes. msgspec itself stops at the first fault; here all of them are found.
"""

import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from controller.manifests.problem import Fault

View = TypeVar("View", bound=msgspec.Struct)

_INDEX = re.compile(r"\[\d+\]")

_TYPES = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def convert(
    value: object, view: type[View], refused: Mapping[str, str]
) -> tuple[View | None, tuple[Fault, ...]]:
    """The typed view of `value` and everything that is wrong with its shape.

    The view is None if some part of it has no usable value; a field too many leaves it usable. `refused` maps
    paths of known fields without effect (``spec.rules[].name``, list positions left out) to what the user
    should do instead.
    """
    walk = _Walk(refused)
    built = walk.build(value, view, "")
    return (built if walk.whole else None), tuple(walk.faults)


def quoted(value: object) -> str:
    """A short printable form of a value from a manifest."""
    match value:
        case Mapping():
            return "an object"
        case list():
            return "a list"
        case int() if value.bit_length() > 64:
            return "a huge integer"
        case _:
            text = json.dumps(value, ensure_ascii=not str(value).isprintable())
            return text if len(text) <= 60 else f'{text[:56]}..."'


class _Walk:
    """One descent through a value; collects faults on the way."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        self._refused = refused
        self.faults: list[Fault] = []
        self.whole = True

    def build(self, value: object, wanted: Any, path: str) -> Any:
        """`value` as the type `wanted`; meaningless once `whole` is False."""
        base, limits = _unwrapped(wanted)
        origin = get_origin(base)
        if isinstance(base, type) and issubclass(base, msgspec.Struct):
            return self._struct(value, base, path)
        if origin is list:
            return self._list(value, get_args(base)[0], limits, path)
        if origin is dict:
            return self._dict(value, get_args(base)[1], path)
        return self._leaf(value, wanted, path)

    def _struct(self, value: object, view: type[msgspec.Struct], path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._unusable(path, f"expected an object, got {quoted(value)}")
        known = {field.encode_name: field for field in msgspec.structs.fields(view)}
        if view.__struct_config__.forbid_unknown_fields:
            self._unknown(value, known, path)
        built = {}
        for name, field in known.items():
            given = value.get(name)
            if given is not None:
                built[field.name] = self.build(given, field.type, _joined(path, name))
            elif field.required:
                self._unusable(_joined(path, name), "this required field is missing")
        return view(**built) if self.whole else None

    def _unknown(self, value: Mapping[object, object], known: Mapping[str, object], path: str) -> None:
        for key in value:
            if key in known:
                continue
            at = _joined(path, key if isinstance(key, str) else quoted(key))
            refusal = self._refused.get(_INDEX.sub("[]", at))
            self.faults.append(Fault(at, refusal or f"unknown field{_suggestion(key, known)}"))

    def _list(self, value: object, item: Any, limits: msgspec.Meta | None, path: str) -> Any:
        if not isinstance(value, list):
            return self._unusable(path, f"expected a list, got {quoted(value)}")
        if limits is not None and not _within(len(value), limits):
            bounds = _bounds(limits.min_length, limits.max_length)
            self._unusable(path, f"has {len(value)} entries; {bounds} are allowed")
        return [self.build(each, item, f"{path}[{at}]") for at, each in enumerate(value)]

    def _dict(self, value: object, item: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._unusable(path, f"expected an object, got {quoted(value)}")
        built = {}
        for key, each in value.items():
            at = f"{path}[{quoted(key)}]"
            if isinstance(key, str) and _encodable(key):
                built[key] = self.build(each, item, at)
            else:
                self._unusable(at, "the key is not a string; put it in quotes")
        return built

    def _leaf(self, value: object, wanted: Any, path: str) -> Any:
        if isinstance(value, str) and not _encodable(value):
            return self._unusable(path, "holds half of a UTF-16 surrogate pair, which is no character")
        try:
            return msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            return self._unusable(path, f"expected {' '.join(_described(wanted))}, got {quoted(value)}")

    def _unusable(self, field: str, message: str) -> Any:
        """Report a fault that leaves no value; the None it returns is never read."""
        self.faults.append(Fault(field, message))
        self.whole = False


def _unwrapped(wanted: Any) -> tuple[Any, msgspec.Meta | None]:
    """The type without ``| None`` and ``Annotated``, and the constraints of the latter."""
    if get_origin(wanted) in (Union, types.UnionType):
        (wanted,) = (each for each in get_args(wanted) if each is not types.NoneType)
    if get_origin(wanted) is Annotated:
        base, limits = get_args(wanted)
        return base, limits
    return wanted, None


def _described(wanted: Any) -> Iterator[str]:
    base, limits = _unwrapped(wanted)
    if get_origin(base) is Literal:
        yield "one of " + ", ".join(quoted(each) for each in get_args(base))
    else:
        yield _TYPES.get(base, "a time such as 2026-01-31T12:00:00Z")
    if limits is None:
        return
    if limits.ge is not None or limits.le is not None:
        both = limits.ge is not None and limits.le is not None
        yield f"{'from' if both else 'of'} {_bounds(limits.ge, limits.le)}"
    if limits.max_length is not None or limits.min_length is not None:
        yield f"of {_bounds(limits.min_length, limits.max_length)} characters"
    if limits.examples:
        yield f"such as {quoted(limits.examples[0])}"


def _bounds(least: float | None, most: float | None) -> str:
    if least is None:
        return f"at most {most}"
    return f"at least {least}" if most is None else f"{least} to {most}"


def _within(length: int, limits: msgspec.Meta) -> bool:
    return (limits.min_length or 0) <= length and (limits.max_length is None or length <= limits.max_length)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _suggestion(key: object, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(str(key), known, 1)
    return f'; did you mean "{near[0]}"?' if near else "; remove it"


def _encodable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)
