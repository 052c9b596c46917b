"""What clients see when something fails where prefill and decode are apart.

The tests bring each failure about and compare; the table in docs/prefill-decode.md is made of the same data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from extproc.state.records import ConnectorName


class Sees(StrEnum):
    """What one client gets."""

    ANSWER = "200"
    OTHER_PREFILL = "200, the prompt by another prefill pod"
    OTHER_DECODE = "200 by another decode pod"
    ALONE = "200, the prompt by the decode pod"
    OTHER_ALONE = "200, all by another decode pod"
    ERROR_EVENT = "200 with an error event"
    CUT = "cut off"
    ENGINE_500 = "500 of the engine"
    ENGINE_503 = "503 of the engine"
    PREFILL_FAILED = "502 prefill-failed"
    PREFILL_TIMEOUT = "504 prefill-timeout"
    UPSTREAM = "503 upstream-unavailable"
    ROUTER = "503 router-unavailable"
    LEFT = "both engines stop"


@dataclass(frozen=True, slots=True)
class Cell:
    """What clients of one connector see."""

    plain: Sees
    streamed: Sees
    late: tuple[Sees, ...] = ()
    """One of these instead, where the failure shows only after the head start of the prompt's leg."""

    def __str__(self) -> str:
        text = str(self.plain)
        if self.streamed is not self.plain:
            text += f"; streamed: {self.streamed}"
        return f"{text}; after 10 ms: {' or '.join(self.late)}" if self.late else text


@dataclass(frozen=True, slots=True)
class Row:
    """One failure."""

    failure: str
    cells: Mapping[ConnectorName, Cell]
    """Connectors that the failure does not concern are absent."""


COLUMNS: tuple[tuple[ConnectorName, ...], ...] = (
    ("http", "lmcache"),
    ("nixl",),
    ("nixl-push",),
    ("mooncake",),
    ("sglang",),
    ("sidecar",),
)
"""Connectors that always behave alike."""


def _row(failure: str, *cells: Cell | None) -> Row:
    """One cell per column."""
    pairs = zip(COLUMNS, cells, strict=True)
    return Row(failure, {name: cell for names, cell in pairs if cell is not None for name in names})


def _both(sees: Sees, *late: Sees) -> Cell:
    return Cell(sees, sees, late)


_ANSWER = _both(Sees.ANSWER)
_OTHER_PREFILL = _both(Sees.OTHER_PREFILL)
_AT_ONCE = _both(Sees.OTHER_PREFILL, Sees.PREFILL_FAILED, Sees.CUT)
_OTHER_DECODE = _both(Sees.OTHER_DECODE)
_OTHER_ALONE = _both(Sees.OTHER_ALONE)
_ALONE = _both(Sees.ALONE)
_LEFT = _both(Sees.LEFT)
_DYING = Cell(Sees.PREFILL_FAILED, Sees.CUT)

_LATE_ALONE = _both(Sees.ALONE, Sees.PREFILL_FAILED, Sees.CUT)
_HUNG = Cell(Sees.PREFILL_TIMEOUT, Sees.CUT)
_OTHER_OR_CUT = Cell(Sees.OTHER_DECODE, Sees.CUT)
_ALONE_OR_CUT = Cell(Sees.OTHER_ALONE, Sees.CUT)
_FAILED_TRANSFER = Cell(Sees.OTHER_ALONE, Sees.ERROR_EVENT)
_LOST = Cell(Sees.ROUTER, Sees.CUT)

ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "prefill-refuses": _row(
            "The prefill pod refuses connections",
            *(_OTHER_PREFILL, _OTHER_PREFILL, _AT_ONCE, _AT_ONCE, _AT_ONCE, None),
        ),
        "prefill-503": _row(
            "The prefill pod answers 503",
            *(_OTHER_PREFILL, _OTHER_PREFILL, _AT_ONCE, _AT_ONCE, _AT_ONCE, None),
        ),
        "prefill-hangs": _row(
            "The prefill pod hangs", _OTHER_PREFILL, _OTHER_PREFILL, _HUNG, _HUNG, _HUNG, None
        ),
        "prefill-dies": _row(
            "The prefill pod dies while it computes",
            *(_OTHER_PREFILL, _OTHER_PREFILL, _DYING, _DYING, _DYING, None),
        ),
        "no-parameters": _row(
            "The prefill pod answers without parameters", None, _OTHER_PREFILL, None, None, None, None
        ),
        "every-prefill-refuses": _row(
            "Every prefill pod of the group refuses connections",
            *(_ALONE, _ALONE, _LATE_ALONE, _LATE_ALONE, _both(Sees.PREFILL_FAILED, Sees.CUT), None),
        ),
        "decode-refuses": _row(
            "The decode pod refuses connections",
            *(_OTHER_DECODE, _OTHER_ALONE, _OTHER_ALONE, _OTHER_ALONE, _OTHER_DECODE, _OTHER_DECODE),
        ),
        "decode-503": _row(
            "The decode pod answers 503",
            *(_OTHER_DECODE, _OTHER_ALONE, _OTHER_ALONE, _OTHER_ALONE, _both(Sees.ENGINE_503), _OTHER_ALONE),
        ),
        "blocks-gone": _row(
            "The prefill pod has given the KV cache up when the decode pod asks for it",
            *(None, _FAILED_TRANSFER, None, None, None, None),
        ),
        "transfer-refused": _row(
            "The decode pod cannot reach the prefill pod's KV port",
            *(None, None, _FAILED_TRANSFER, None, Cell(Sees.ENGINE_500, Sees.ERROR_EVENT), None),
        ),
        "decode-dies": _row(
            "The decode pod dies before it has asked for the KV cache",
            *(_OTHER_DECODE, _OTHER_ALONE, _OTHER_ALONE, _OTHER_ALONE, _both(Sees.UPSTREAM), _OTHER_DECODE),
        ),
        "decode-dies-answering": _row(
            "The decode pod dies while it computes the answer",
            *(_OTHER_OR_CUT, _ALONE_OR_CUT, _ALONE_OR_CUT, _ALONE_OR_CUT),
            *(Cell(Sees.UPSTREAM, Sees.CUT), _OTHER_OR_CUT),
        ),
        "client-leaves-prefill": _row(
            "The client leaves while the prompt is computed", _LEFT, _LEFT, _LEFT, _LEFT, _LEFT, None
        ),
        "client-leaves-decode": _row(
            "The client leaves while the answer is computed", _LEFT, _LEFT, _LEFT, _LEFT, _LEFT, _LEFT
        ),
        "worker-stops": _row(
            "The kvoy worker is stopped (SIGTERM) while the prompt is computed, which takes less than 4 s",
            *(_ANSWER, _ANSWER, _ANSWER, _ANSWER, _ANSWER, None),
        ),
        "worker-killed": _row(
            "The kvoy worker is killed (SIGKILL) while the prompt is computed",
            *(_ANSWER, _ANSWER, _LOST, _LOST, _LOST, None),
        ),
        "store-gone": _row("The store is gone", _ANSWER, _ANSWER, _ANSWER, _ANSWER, _ANSWER, _ANSWER),
    }
)
"""Every failure, by the name of its test."""


def table() -> Iterator[str]:
    """The lines of the table, in Markdown."""
    yield _line("", *(", ".join(names) for names in COLUMNS))
    yield _line(*["---"] * (len(COLUMNS) + 1))
    for row in ROWS.values():
        told = (row.cells.get(names[0]) for names in COLUMNS)
        yield _line(row.failure, *("–" if cell is None else str(cell) for cell in told))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
