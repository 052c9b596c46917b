"""Pure: what an engine exposes under ``/metrics``, as one observation per data-parallel rank.

vLLM and SGLang, by exact names: a prefix would count ``vllm:num_requests_waiting_by_reason`` as waiting. What
is not exposed is None and never 0, so that a renamed gauge does not look like an idle engine.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs")
WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs")
USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage")
TTFT = ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds")
TPOT = (
    "vllm:inter_token_latency_seconds",
    "vllm:time_per_output_token_seconds",
    "sglang:inter_token_latency_seconds",
    "sglang:time_per_output_token_seconds",
)
CAPACITY = ("sglang:max_total_num_tokens",)
PAGE = ("sglang:page_size",)
SLEEP = "vllm:engine_sleep_state"
CACHE = ("vllm:cache_config_info", "sglang:cache_config_info")
LORA = "vllm:lora_requests_info"
STARTED = "process_start_time_seconds"

_GAUGES = (*RUNNING, *WAITING, *USAGE, *CAPACITY, *PAGE)
_HISTOGRAMS = (*TTFT, *TPOT)
_NAMES = frozenset(
    (
        *_GAUGES,
        *(f"{name}_{part}" for name in _HISTOGRAMS for part in ("sum", "count")),
        *(SLEEP, *CACHE, LORA, STARTED),
    )
)
_FIRST_OF_ITS_GROUP = ("tp_rank", "pp_rank", "moe_ep_rank")


class Unreadable(ValueError):
    """What the pod answered is no exposition of an engine; the message says why."""


class Tally(NamedTuple):
    """Sum and count of a histogram of seconds, since the engine started."""

    seconds: float
    events: float


@dataclass(frozen=True, slots=True)
class Observation:
    """One data-parallel rank, as it says; None is what it does not say."""

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    """Share of KV blocks in use, 0 to 1."""
    asleep: bool = False
    ttft: Tally | None = None
    tpot: Tally | None = None
    block_size: int | None = None
    """Tokens per KV block."""
    capacity_tokens: int | None = None
    """Tokens that the KV cache of this rank holds."""


@dataclass(frozen=True, slots=True)
class Exposition:
    """Everything one pod exposes that the scheduler can use."""

    started: float | None
    """When the process started, in seconds since 1970."""
    ranks: Mapping[int, Observation]
    """By data-parallel rank; never empty."""
    active_adapters: frozenset[str]
    """LoRA adapters in use just now."""


def read(text: str) -> Exposition:
    """What `text`, in Prometheus' text format, says; raises `Unreadable`."""
    samples = _samples(text)
    ranks: dict[int, list[Sample]] = {}
    for sample in samples:
        rank = _rank(sample)
        if rank is not None and sample.name not in (STARTED, LORA):
            ranks.setdefault(rank, []).append(sample)
    if not ranks:
        raise Unreadable("it exposes no metric of vLLM or SGLang")
    return Exposition(
        started=next((s.value for s in samples if s.name == STARTED and math.isfinite(s.value)), None),
        ranks={rank: _observation(_Series.of(found)) for rank, found in sorted(ranks.items())},
        active_adapters=_active_adapters(s for s in samples if s.name == LORA),
    )


def aggregated(ranks: Iterable[Observation]) -> Observation:
    """Several ranks as one engine: counts and sizes add up, usage is the mean; asleep if all are."""
    all_of = list(ranks)
    usages = [one.kv_usage for one in all_of if one.kv_usage is not None]
    return Observation(
        running=_total(one.running for one in all_of),
        waiting=_total(one.waiting for one in all_of),
        kv_usage=sum(usages) / len(usages) if usages else None,
        asleep=all(one.asleep for one in all_of),
        ttft=_merged(one.ttft for one in all_of),
        tpot=_merged(one.tpot for one in all_of),
        block_size=next((one.block_size for one in all_of if one.block_size), None),
        capacity_tokens=_total(one.capacity_tokens for one in all_of),
    )


def _samples(text: str) -> list[Sample]:
    # The parser takes 30 µs per line: it gets the two dozen lines of these names out of a thousand.
    wanted = [line for line in text.split("\n") if line.partition("{")[0].partition(" ")[0] in _NAMES]
    try:
        families = list(text_string_to_metric_families("\n".join(wanted)))
    except (ValueError, IndexError) as error:
        raise Unreadable(f"it is no Prometheus text: {error}") from error
    return [sample for family in families for sample in family.samples if _counts(sample)]


def _counts(sample: Sample) -> bool:
    """Whether a series adds something: shards of one rank repeat it, and so do series per priority."""
    labels = sample.labels
    return not labels.get("priority") and all(labels.get(name, "0") == "0" for name in _FIRST_OF_ITS_GROUP)


def _rank(sample: Sample) -> int | None:
    """The data-parallel rank: label ``engine`` of vLLM, ``dp_rank`` of SGLang; None for nonsense."""
    written = sample.labels.get("engine") or sample.labels.get("dp_rank") or "0"
    return int(written) if re.fullmatch("[0-9]{1,4}", written) else None


class _Series:
    """The series of one rank by name."""

    def __init__(self, sums: Mapping[str, float], infos: Iterable[Mapping[str, str]], awake: bool) -> None:
        self.sums = sums
        self.infos = tuple(infos)
        self.awake = awake

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> "_Series":
        sums: dict[str, float] = {}
        infos = []
        awake = True
        for sample in samples:
            if sample.name in CACHE:
                infos.append(sample.labels)
            elif sample.name == SLEEP:
                awake = awake and (sample.labels.get("sleep_state") != "awake" or sample.value != 0)
            else:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return cls(sums, infos, awake)

    def gauge(self, names: Iterable[str]) -> float | None:
        """The first of `names` that is exposed with a sensible value."""
        return next(self._sensible(names), None)

    def whole(self, names: Iterable[str]) -> int | None:
        value = self.gauge(names)
        return None if value is None else int(value)

    def tally(self, names: Iterable[str]) -> Tally | None:
        for name in names:
            parts = list(self._sensible((f"{name}_sum", f"{name}_count")))
            if len(parts) == 2:
                return Tally(*parts)
        return None

    def info(self, *labels: str) -> int | None:
        """The first of `labels`, of the cache configuration, that is a number above 0."""
        texts = (info.get(label, "") for label in labels for info in self.infos)
        return next((int(text) for text in texts if re.fullmatch("[1-9][0-9]{0,14}", text)), None)

    def _sensible(self, names: Iterable[str]) -> Iterator[float]:
        values = (self.sums[name] for name in names if name in self.sums)
        return (value for value in values if math.isfinite(value) and value >= 0)


def _observation(series: _Series) -> Observation:
    usage = series.gauge(USAGE)
    block_size = series.info("block_size", "page_size") or series.whole(PAGE) or None
    return Observation(
        running=series.whole(RUNNING),
        waiting=series.whole(WAITING),
        kv_usage=None if usage is None else min(1.0, usage),
        asleep=not series.awake,
        ttft=series.tally(TTFT),
        tpot=series.tally(TPOT),
        block_size=block_size,
        capacity_tokens=_capacity(series, block_size),
    )


def _capacity(series: _Series, block_size: int | None) -> int | None:
    """vLLM counts the blocks of all ranks together, but the tokens of each: tokens go first."""
    tokens = series.info("kv_cache_size_tokens") or series.whole(CAPACITY)
    blocks = series.info("num_gpu_blocks", "num_pages")
    return tokens or (blocks * block_size if blocks and block_size else None)


def _active_adapters(samples: Iterable[Sample]) -> frozenset[str]:
    """Of the newest series: a label set that was true once stays for ever, its value is when it was."""
    newest = max(samples, key=lambda sample: sample.value, default=None)
    if newest is None:
        return frozenset()
    listed = (newest.labels.get(f"{state}_lora_adapters", "") for state in ("running", "waiting"))
    return frozenset(name.strip() for names in listed for name in names.split(",")) - {""}


def _total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _merged(tallies: Iterable[Tally | None]) -> Tally | None:
    known = [tally for tally in tallies if tally is not None]
    return Tally(sum(t.seconds for t in known), sum(t.events for t in known)) if known else None
