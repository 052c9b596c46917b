"""Body bytes to a typed request, or the error that vLLM gives for them."""

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from benchmarks.engine.api.errors import ApiError

Body = TypeVar("Body")

_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`(?: - at `\$(?P<at>[^`]*)`)?")
_AT = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<at>[^`]*)`)?$", re.DOTALL)
_OFFSET = re.compile(r"\(byte (\d+)\)")


def parse(raw: bytes, kind: type[Body]) -> Body:
    """``raw`` as a ``kind``; ApiError 400 names the place of the first mistake."""
    try:
        return msgspec.json.decode(raw, type=kind, strict=True)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), raw) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(str(error), raw) from None


def _not_json(text: str, raw: bytes) -> ApiError:
    found = _OFFSET.search(text)
    at = f"body.{found.group(1) if found else len(raw)}"
    entry = {
        "type": "json_invalid",
        "loc": at,
        "msg": "JSON decode error",
        "input": "<dict of 0 items>",
        "ctx": {"error": text},
    }
    return _error(entry, at)


def _invalid(text: str, raw: bytes) -> ApiError:
    missing = _MISSING.match(text)
    if missing is not None:
        at = _location(missing["at"]) + "." + missing["field"]
        given = len(msgspec.json.decode(raw, type=dict[str, msgspec.Raw])) if missing["at"] is None else 0
        entry = {"type": "missing", "loc": at, "msg": "Field required", "input": f"<dict of {given} items>"}
        return _error(entry, at)
    found = _AT.match(text)
    assert found is not None, "the pattern matches every text"
    at = _location(found["at"])
    return _error({"type": "value_error", "loc": at, "msg": found["what"]}, at)


def _location(path: str | None) -> str:
    """``.messages[0].content`` as pydantic writes it: ``body.messages.0.content``."""
    return "body" + re.sub(r"\[([^\]]*)\]", r".\1", path or "")


def _error(entry: Mapping[str, object], at: str) -> ApiError:
    return ApiError(400, f"1 validation error:\n  {entry}", at, "Bad Request")
