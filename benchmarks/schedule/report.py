"""Measurements -> rows, tables for people, JSON for programs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from benchmarks.schedule.prompts import BLOCK_BYTES
from benchmarks.schedule.scene import Scene
from benchmarks.schedule.stalls import Held

Mode = Literal["approximate", "exact"]


@dataclass(slots=True)
class Decisions:
    """Decisions on prompts of one size, in several passes."""

    mode: Mode
    blocks: int
    pods: int
    events_per_s: int
    workers: int
    index_entries: int = 0
    passes: list[list[float]] = field(default_factory=list)
    """Seconds that each took."""
    held: Held = field(default_factory=Held)

    @classmethod
    def of(cls, scene: Scene, blocks: int, events_per_s: int, workers: int) -> "Decisions":
        """Of a scene, without any yet."""
        return cls("exact" if scene.exact else "approximate", blocks, scene.pods, events_per_s, workers)


class Row(msgspec.Struct, frozen=True, tag_field="case"):
    """One line of the report; JSON names its kind as ``case``."""


class DecisionRow(Row, frozen=True, tag="decision"):
    """From a request's bytes to its reservation. Medians of the passes."""

    prompt_bytes: int
    blocks: int
    """Of 64 B of JSON; of 16 token ids where `mode` is ``exact``."""
    pods: int
    index_entries: int
    mode: Mode
    """``exact``: from token ids that are at hand, with both indexes."""
    workers: int
    events_per_s: int
    """Block changes applied alongside; 0 for a quiet process."""
    decisions: int
    p50_us: float
    p99_us: float
    stall_ms: float
    """Longest time that the event loop was held up by its own work; 0 for a quiet process, which has none."""
    stalls: int
    """How often that was longer than 5 ms."""
    late_ms: float
    """The latest that the loop came to anything by the clock: the rest of the machine counts too."""


class MemoryRow(Row, frozen=True, tag="memory"):
    """Of a full index."""

    index: Literal["prefix", "kv"]
    pods: int
    index_entries: int
    bytes_per_entry: float
    """Of resident memory; an entry of ``prefix`` is also in the generations of each life that holds it."""


class IngestRow(Row, frozen=True, tag="ingest"):
    """KV events as an engine sends them, into changes of the index as they are published."""

    blocks_per_batch: int
    blocks: int
    blocks_per_s: float
    """Of processor time of one core."""


class LagRow(Row, frozen=True, tag="lag"):
    """From publishing to having been applied in every worker."""

    what: Literal["statements", "blocks"]
    workers: int
    entries_per_s: int
    """Statements."""
    blocks_per_s: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


class SoakRow(Row, frozen=True, tag="soak"):
    """Resident memory after so many decisions."""

    decisions: int
    rss_mb: float
    index_entries: int


class TokenisingRow(Row, frozen=True, tag="tokenising"):
    """Prompt to token ids, with the tokeniser here."""

    prompt_bytes: int
    tokens: int
    beginning: Literal["new", "known"]
    """Whether all but the end was tokenised before."""
    p50_us: float
    p99_us: float


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which the share `q` (0 to 1) of the values lies; nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def decision_row(found: Decisions) -> DecisionRow:
    """The row of decisions in passes."""

    def us(q: float) -> float:
        return round(median(quantile(times, q) for times in found.passes) * 1e6, 1)

    return DecisionRow(
        prompt_bytes=found.blocks * BLOCK_BYTES,
        blocks=found.blocks,
        pods=found.pods,
        index_entries=found.index_entries,
        mode=found.mode,
        workers=found.workers,
        events_per_s=found.events_per_s,
        decisions=sum(map(len, found.passes)),
        p50_us=us(0.5),
        p99_us=us(0.99),
        stall_ms=round(found.held.longest_s * 1e3, 2),
        stalls=found.held.stalls,
        late_ms=round(found.held.longest_late_s * 1e3, 2),
    )


def tables(rows: Sequence[Row]) -> str:
    """Markdown tables, one per kind of row, in the order in which the kinds come."""
    kinds = dict.fromkeys(type(row) for row in rows)
    return "\n\n".join(_table([row for row in rows if type(row) is kind]) for kind in kinds)


def write_json(rows: Sequence[Row], file: Path) -> None:
    """The rows as a JSON array."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))


def _table(rows: Sequence[Row]) -> str:
    names = rows[0].__struct_fields__
    lines = [
        f"| {' | '.join(name.replace('_', ' ') for name in names)} |",
        f"|{'---:|' * len(names)}",
    ]
    lines += [f"| {' | '.join(_cell(getattr(row, name)) for name in names)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if isinstance(value, float) and value >= 100 else str(value)
