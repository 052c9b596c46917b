"""Durations as Go and Kubernetes write them: ``10s``, ``1m30s``, ``100ms``."""

import re
from collections.abc import Iterator

from controller.manifests.problem import Fault
from controller.manifests.shape import quoted

LONGEST_S = 365 * 24 * 3600.0
"""A year, in seconds: beyond any sensible wait, well inside what Envoy accepts."""

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def seconds(text: str) -> float:
    """The length in seconds: 0, or from a millisecond to `LONGEST_S`.

    Raises ValueError, saying what is expected, if `text` is anything else.
    """
    if text == "0":
        return 0.0
    parts = list(_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(f'{text!r:.60} is not a duration; write it with units, as in "10s" or "1m30s"')
    total = sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    if total > LONGEST_S:
        raise ValueError(f"{text!r:.60} is longer than a year")
    if 0 < total < 0.001:
        raise ValueError(f"{text!r:.60} is shorter than a millisecond")
    return total


def faults(text: str, path: str, shortest: str = "0", longest: str = "8760h") -> Iterator[Fault]:
    """A fault if `text`, found at `path`, is no length between two others."""
    try:
        length = seconds(text)
    except ValueError as error:
        yield Fault(path, str(error))
        return
    if length < seconds(shortest):
        yield Fault(path, f"{quoted(text)} is shorter than {shortest}")
    if length > seconds(longest):
        yield Fault(path, f"{quoted(text)} is longer than {longest}")
