from array import array
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.engine.batch import Batch, Job, Limits, Prefilled
from benchmarks.engine.cache import BlockCache
from benchmarks.engine.families import Families
from benchmarks.engine.frontend import FrontendMetrics
from benchmarks.engine.metrics import Finished, RankMetrics
from benchmarks.engine.models import Adapter
from benchmarks.engine.settings import EngineSettings

CAPTURE = Path(__file__).parent / "captures" / "metrics_after_load.txt"
CAPTURE_OF_TWO = CAPTURE.with_name("metrics_dp2.txt")

# The captured server had 4096 tokens of context, blocks of 32 and room for two adapters.
SETTINGS = EngineSettings(model="tiny", max_model_len=4096, block_size=32, num_blocks=4096, max_loras=2)

LEFT_OUT = (
    "python_", "process_virtual", "process_resident", "process_cpu", "process_open_fds", "process_max_fds",
    "vllm:estimated_", "vllm:iteration_tokens", "vllm:kv_block_", "vllm:sleep_mode",
    "http_request_size_bytes", "http_response_size_bytes", "http_request_duration_seconds",
)  # fmt: skip

Exposed = dict[str, Metric]


def families(text: str) -> Exposed:
    return {family.name: family for family in text_string_to_metric_families(text)}


def a_batch(settings: EngineSettings = SETTINGS) -> Batch:
    return Batch(Limits(2, 2, 2, 10.0), BlockCache(settings.num_blocks, settings.block_size))


def after_requests(ranks: int) -> Exposed:
    """One request for each rank, so that labelled families have samples."""
    all_families = Families()
    frontend = FrontendMetrics(all_families, SETTINGS, wall=lambda: 1234.5)
    for rank in range(ranks):
        metrics = RankMetrics(all_families, SETTINGS, rank, a_batch())
        job = Job(0, array("I", [1] * 122), array("I", [2] * 8), Adapter("lora-a", 1))
        frontend.adapters(rank, frozenset({"lora-a"}), frozenset())
        metrics.prompt_computed(Prefilled(job, 1.0, 1.5, 2.0, 96, 0))
        metrics.first_token(0.03)
        metrics.tokens(7, 0.07)
        metrics.finished(Finished(Prefilled(job, 1.0, 1.5, 2.0, 96, 0), 3.0, "length", n=1, max_tokens=8))
        frontend.http("/v1/chat/completions", "POST", 200, 0.5)
    return families(all_families.render().decode())


@pytest.fixture(scope="module")
def captured() -> Exposed:
    return families(CAPTURE.read_text())


@pytest.fixture(scope="module")
def given() -> Exposed:
    return after_requests(ranks=1)


def value(given: Exposed, sample: str, **labels: str) -> float:
    for family in given.values():
        for entry in family.samples:
            if entry.name == sample and labels.items() <= entry.labels.items():
                return entry.value
    raise KeyError(sample)


def test_every_family_of_vllm_that_has_a_meaning_here_is_there(captured: Exposed, given: Exposed) -> None:
    wanted = {name for name in captured if not name.startswith(LEFT_OUT)}
    assert set(given) == wanted


def test_every_family_has_the_type_of_vllms(captured: Exposed, given: Exposed) -> None:
    assert {name: family.type for name, family in given.items()} == {
        name: captured[name].type for name in given
    }


def test_every_series_has_the_labels_of_vllms(captured: Exposed, given: Exposed) -> None:
    def labels(found: Exposed, name: str) -> set[tuple[str, tuple[str, ...]]]:
        return {(sample.name, tuple(sorted(sample.labels))) for sample in found[name].samples}

    assert {name: labels(given, name) for name in given} == {name: labels(captured, name) for name in given}


def test_every_fixed_label_has_the_values_of_vllms(captured: Exposed, given: Exposed) -> None:
    """Series that exist from the start: reasons, sources, states, buckets."""

    def series(found: Exposed, name: str) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
        return sorted((sample.name, tuple(sorted(sample.labels.items()))) for sample in found[name].samples)

    by_use = ("http_requests", "vllm:cache_config_info")
    names = [name for name in given if not name.startswith(by_use)]
    for name in names:
        assert series(given, name) == series(captured, name)


def test_the_cache_configuration_reads_like_vllms(captured: Exposed, given: Exposed) -> None:
    ours, theirs = (dict(found["vllm:cache_config_info"].samples[0].labels) for found in (given, captured))
    assert theirs.pop("kv_cache_memory_bytes") == "67108864"  # the simulator's blocks have no bytes
    assert ours.pop("kv_cache_memory_bytes") == "None"
    assert ours == theirs


def test_a_request_is_counted_as_vllm_counts_it(given: Exposed) -> None:
    assert value(given, "vllm:prefix_cache_queries_total") == 122
    assert value(given, "vllm:prefix_cache_hits_total") == 96
    assert value(given, "vllm:prompt_tokens_total") == 122
    assert value(given, "vllm:prompt_tokens_by_source_total", source="local_compute") == 26
    assert value(given, "vllm:prompt_tokens_by_source_total", source="local_cache_hit") == 96
    assert value(given, "vllm:prompt_tokens_cached_by_source_total", source="device") == 96
    assert value(given, "vllm:generation_tokens_total") == 8
    assert value(given, "vllm:request_success_total", finished_reason="length") == 1
    assert value(given, "vllm:request_success_total", finished_reason="abort") == 0
    assert value(given, "vllm:time_to_first_token_seconds_sum") == 0.03
    assert value(given, "vllm:inter_token_latency_seconds_count") == 7
    assert value(given, "vllm:inter_token_latency_seconds_sum") == pytest.approx(0.07)
    assert value(given, "vllm:e2e_request_latency_seconds_sum") == 2.0
    assert value(given, "vllm:request_queue_time_seconds_sum") == 0.5
    assert value(given, "vllm:request_prefill_time_seconds_sum") == 0.5
    assert value(given, "vllm:request_decode_time_seconds_sum") == 1.0
    assert value(given, "vllm:request_prefill_kv_computed_tokens_sum") == 26
    assert value(given, "process_start_time_seconds") == 1234.5


def test_gauges_follow_the_batch() -> None:
    batch, exposed = a_batch(), Families()
    RankMetrics(exposed, SETTINGS, 0, batch)
    for number in range(3):
        batch.submit(Job(number, array("I", [number] * 320), array("I", [1] * 32)), 0.0)
    found = families(exposed.render().decode())
    assert value(found, "vllm:num_requests_running") == 2
    assert value(found, "vllm:num_requests_waiting") == 1
    assert value(found, "vllm:num_requests_waiting_by_reason", reason="capacity") == 1
    assert value(found, "vllm:num_requests_waiting_by_reason", reason="deferred") == 0
    assert value(found, "vllm:kv_cache_usage_perc") == 22 / 4096


def test_every_rank_has_the_series_of_vllms() -> None:
    """As captured from a server of two ranks, which had no adapters and counted no success yet."""
    theirs, ours = families(CAPTURE_OF_TWO.read_text()), after_requests(ranks=2)
    not_here = ("http_", "vllm:cache_config_info", "vllm:lora", *LEFT_OUT)
    for name in (name for name in theirs if not name.startswith(not_here)):
        assert ranks_of(ours[name]) == ranks_of(theirs[name]), name
    assert ranks_of(ours["vllm:cache_config_info"]) == ["0", "1"]


def ranks_of(family: Metric) -> list[str]:
    return sorted({sample.labels.get("engine", "") for sample in family.samples})


@pytest.mark.parametrize(
    ("level", "states"),
    [(None, (1, 0, 0)), (0, (0, 0, 0)), (1, (0, 1, 0)), (2, (0, 0, 1))],
)
def test_the_level_of_sleep_is_told(level: int | None, states: tuple[int, ...]) -> None:
    exposed = Families()
    metrics = RankMetrics(exposed, SETTINGS, 0, a_batch())
    metrics.sleep(2)
    metrics.sleep(level)
    found = families(exposed.render().decode())
    names = ("awake", "weights_offloaded", "discard_all")
    told = tuple(value(found, "vllm:engine_sleep_state", sleep_state=name) for name in names)
    assert told == states
