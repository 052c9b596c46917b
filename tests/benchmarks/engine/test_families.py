from prometheus_client.parser import text_string_to_metric_families

from benchmarks.engine.families import Families


def samples(families: Families) -> dict[tuple[str, str], float]:
    found = text_string_to_metric_families(families.render().decode())
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in found
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_a_family_is_declared_once_whoever_asks() -> None:
    families = Families()
    for rank in ("0", "1"):
        families.counter("turns", "Turns.", ["rank"]).labels(rank=rank).inc()
        families.gauge("depth", "Depth.", ["rank"]).labels(rank=rank).set(float(rank))
        families.histogram("size", "Sizes.", buckets=(1, 2)).observe(1.5)
    assert samples(families) == {
        ("turns_total", "0"): 1.0,
        ("turns_total", "1"): 1.0,
        ("depth", "0"): 0.0,
        ("depth", "1"): 1.0,
        ("size_bucket", "1.0"): 0.0,
        ("size_bucket", "2.0"): 2.0,
        ("size_bucket", "+Inf"): 2.0,
        ("size_count", ""): 2.0,
        ("size_sum", ""): 3.0,
    }


def test_two_servers_in_one_process_count_apart() -> None:
    one, two = Families(), Families()
    one.counter("turns", "Turns.").inc()
    two.counter("turns", "Turns.")
    assert (samples(one)["turns_total", ""], samples(two)["turns_total", ""]) == (1.0, 0.0)
