from array import array
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.engine.batch import Batch, Job, Limits, Prefilled
from benchmarks.engine.cache import BlockCache
from benchmarks.engine.metrics import EngineMetrics, Finished
from benchmarks.engine.settings import EngineSettings

CAPTURE = Path(__file__).parent / "captures" / "metrics_after_load.txt"

# The captured server had 4096 tokens of context, blocks of 32 and room for two adapters.
SETTINGS = EngineSettings(model="tiny", max_model_len=4096, block_size=32, num_blocks=4096, max_loras=2)

LEFT_OUT = (
    "python_", "process_virtual", "process_resident", "process_cpu", "process_open_fds", "process_max_fds",
    "vllm:estimated_", "vllm:iteration_tokens", "vllm:kv_block_", "vllm:sleep_mode",
    "http_request_size_bytes", "http_response_size_bytes", "http_request_duration_seconds",
)  # fmt: skip

Families = dict[str, Metric]


def families(text: str) -> Families:
    return {family.name: family for family in text_string_to_metric_families(text)}


def a_batch(settings: EngineSettings = SETTINGS) -> Batch:
    return Batch(Limits(2, 2, 2, 10.0), BlockCache(settings.num_blocks, settings.block_size))


def the_metrics(batch: Batch | None = None) -> EngineMetrics:
    return EngineMetrics(SETTINGS, batch or a_batch(), wall=lambda: 1234.5)


def after_a_request() -> EngineMetrics:
    """One request, so that labelled families have samples."""
    metrics = the_metrics()
    job = Job(0, array("I", [1] * 122), array("I", [2] * 8), "lora-a")
    metrics.adapters(frozenset({"lora-a"}), frozenset())
    metrics.prompt_computed(122, 96)
    metrics.first_token(0.03)
    metrics.tokens(7, 0.07)
    metrics.finished(Finished(Prefilled(job, 1.0, 1.5, 2.0, 96, 0), 3.0, "length", n=1, max_tokens=8))
    metrics.http("/v1/chat/completions", "POST", 200, 0.5)
    return metrics


@pytest.fixture(scope="module")
def captured() -> Families:
    return families(CAPTURE.read_text())


@pytest.fixture(scope="module")
def given() -> Families:
    return families(after_a_request().render().decode())


def value(given: Families, sample: str, **labels: str) -> float:
    for family in given.values():
        for entry in family.samples:
            if entry.name == sample and labels.items() <= entry.labels.items():
                return entry.value
    raise KeyError(sample)


def test_every_family_of_vllm_that_has_a_meaning_here_is_there(captured: Families, given: Families) -> None:
    wanted = {name for name in captured if not name.startswith(LEFT_OUT)}
    assert set(given) == wanted


def test_every_family_has_the_type_of_vllms(captured: Families, given: Families) -> None:
    assert {name: family.type for name, family in given.items()} == {
        name: captured[name].type for name in given
    }


def test_every_series_has_the_labels_of_vllms(captured: Families, given: Families) -> None:
    def labels(found: Families, name: str) -> set[tuple[str, tuple[str, ...]]]:
        return {(sample.name, tuple(sorted(sample.labels))) for sample in found[name].samples}

    assert {name: labels(given, name) for name in given} == {name: labels(captured, name) for name in given}


def test_every_fixed_label_has_the_values_of_vllms(captured: Families, given: Families) -> None:
    """Series that exist from the start: reasons, sources, states, buckets."""

    def series(found: Families, name: str) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
        return sorted((sample.name, tuple(sorted(sample.labels.items()))) for sample in found[name].samples)

    by_use = ("http_requests", "vllm:cache_config_info")
    names = [name for name in given if not name.startswith(by_use)]
    for name in names:
        assert series(given, name) == series(captured, name)


def test_the_cache_configuration_reads_like_vllms(captured: Families, given: Families) -> None:
    ours, theirs = (dict(found["vllm:cache_config_info"].samples[0].labels) for found in (given, captured))
    assert theirs.pop("kv_cache_memory_bytes") == "67108864"  # the simulator's blocks have no bytes
    assert ours.pop("kv_cache_memory_bytes") == "None"
    assert ours == theirs


def test_a_request_is_counted_as_vllm_counts_it(given: Families) -> None:
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
    batch = a_batch()
    metrics = the_metrics(batch)
    for number in range(3):
        batch.submit(Job(number, array("I", [number] * 320), array("I", [1] * 32)), 0.0)
    found = families(metrics.render().decode())
    assert value(found, "vllm:num_requests_running") == 2
    assert value(found, "vllm:num_requests_waiting") == 1
    assert value(found, "vllm:num_requests_waiting_by_reason", reason="capacity") == 1
    assert value(found, "vllm:num_requests_waiting_by_reason", reason="deferred") == 0
    assert value(found, "vllm:kv_cache_usage_perc") == 22 / 4096


def test_a_rejection_is_counted() -> None:
    metrics = the_metrics()
    metrics.rejected()
    found = families(metrics.render().decode())
    assert value(found, "vllm:admission_rejections_total", reason="max_num_queued_reqs") == 1


def test_without_adapters_there_is_no_adapter_metric() -> None:
    settings = EngineSettings(max_loras=0)
    found = families(EngineMetrics(settings, a_batch(settings), lambda: 0.0).render().decode())
    assert "vllm:lora_requests_info" not in found


def test_old_adapter_series_stay_and_the_newest_has_the_largest_value() -> None:
    times = iter([1.0, 2.0, 3.0, 4.0])
    metrics = EngineMetrics(SETTINGS, a_batch(), wall=lambda: next(times))
    metrics.adapters(frozenset({"b", "a"}), frozenset({"c"}))
    metrics.adapters(frozenset({"c"}), frozenset())
    samples = families(metrics.render().decode())["vllm:lora_requests_info"].samples
    newest = max(samples, key=lambda sample: sample.value)
    assert len(samples) == 3
    assert newest.labels["running_lora_adapters"] == "c"
    assert any(sample.labels["waiting_lora_adapters"] == "a,b,c" for sample in samples)


def test_engines_in_one_process_count_apart() -> None:
    one, two = the_metrics(), the_metrics()
    one.rejected()
    assert one.render() != two.render()
