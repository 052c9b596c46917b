from prometheus_client.parser import text_string_to_metric_families

from extproc.collect.counters import GAUGES, TOTALS, Counters, Readings


def series(counters):
    families = text_string_to_metric_families(counters.exposition().decode())
    return {
        sample.name: sample.value for family in families for sample in family.samples if not sample.labels
    }


def test_looks_and_failures_are_counted():
    counters = Counters()
    counters.looked(0.02)
    counters.looked(0.04)
    counters.failed()

    found = series(counters)

    assert found["kvoy_collector_scrape_seconds_count"] == 2
    assert found["kvoy_collector_scrape_seconds_sum"] == 0.06
    assert found["kvoy_collector_scrape_failures_total"] == 1


def test_readings_are_taken_when_they_are_asked_for():
    values = {name: float(at) for at, name in enumerate((*GAUGES, *TOTALS))}
    counters = Counters()
    counters.registry.register(Readings(lambda: values))
    values["kvoy_collector_pods"] = 99.0

    found = series(counters)

    assert found["kvoy_collector_pods"] == 99
    for name in GAUGES:
        assert found[name] == values[name]
    for name in TOTALS:
        assert found[f"{name}_total"] == values[name]
