from collections.abc import Callable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.engine.families import Families
from benchmarks.engine.frontend import FrontendMetrics
from benchmarks.engine.settings import EngineSettings


class Frontend:
    def __init__(self, wall: Callable[[], float] = lambda: 1234.5, **knobs: object) -> None:
        self._families = Families()
        self.metrics = FrontendMetrics(self._families, EngineSettings(**knobs), wall)

    def __getitem__(self, name: str) -> Metric:
        found = text_string_to_metric_families(self._families.render().decode())
        return {family.name: family for family in found}[name]

    def newest_adapters(self) -> tuple[str, str]:
        newest = max(self["vllm:lora_requests_info"].samples, key=lambda sample: sample.value)
        return newest.labels["running_lora_adapters"], newest.labels["waiting_lora_adapters"]


def test_the_start_of_the_engine_is_told() -> None:
    assert Frontend()["process_start_time_seconds"].samples[0].value == 1234.5


def test_a_rejection_is_counted() -> None:
    frontend = Frontend()
    frontend.metrics.rejected()
    counted = {
        sample.labels["reason"]: sample.value
        for sample in frontend["vllm:admission_rejections"].samples
        if sample.name.endswith("_total")
    }
    assert counted == {"max_num_queued_reqs": 1, "max_num_queued_tokens": 0}


def test_without_adapters_there_is_no_adapter_metric() -> None:
    frontend = Frontend(max_loras=0)
    frontend.metrics.adapters(0, frozenset({"a"}), frozenset())
    try:
        frontend["vllm:lora_requests_info"]
    except KeyError:
        return
    raise AssertionError("there is one")


def test_old_adapter_series_stay_and_the_newest_has_the_largest_value() -> None:
    times = iter([1.0, 2.0, 3.0, 4.0])
    frontend = Frontend(wall=lambda: next(times))
    frontend.metrics.adapters(0, frozenset({"b", "a"}), frozenset({"c"}))
    frontend.metrics.adapters(0, frozenset({"c"}), frozenset())
    samples = frontend["vllm:lora_requests_info"].samples
    assert len(samples) == 3
    assert frontend.newest_adapters() == ("c", "c")
    assert any(sample.labels["waiting_lora_adapters"] == "a,b,c" for sample in samples)


def test_the_adapters_of_all_ranks_are_told_together() -> None:
    times = iter(range(1, 9))
    frontend = Frontend(wall=lambda: float(next(times)))
    frontend.metrics.adapters(0, frozenset({"a"}), frozenset())
    frontend.metrics.adapters(1, frozenset({"b"}), frozenset({"c"}))
    assert frontend.newest_adapters() == ("a,b", "a,b,c")
    frontend.metrics.adapters(0, frozenset(), frozenset())
    assert frontend.newest_adapters() == ("b", "b,c")


def test_answers_are_counted_by_class_of_status() -> None:
    frontend = Frontend()
    for status in (200, 204, 503):
        frontend.metrics.http("/v1/completions", "POST", status, 0.5)
    counted = {
        sample.labels["status"]: sample.value
        for sample in frontend["http_requests"].samples
        if sample.name.endswith("_total")
    }
    assert counted == {"2xx": 2, "5xx": 1}
