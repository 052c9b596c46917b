from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.engine.batch import Batch, Job, Limits
from benchmarks.engine.cache import BlockCache
from benchmarks.engine.families import Families
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.tokens import encode
from benchmarks.engine.transfer.counters import TransferCounters

CAPTURE = Path(__file__).parents[1] / "captures" / "metrics_nixl.txt"
"""Of a decode engine: only the families about transfers."""


def exposed(text: str) -> dict[str, object]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def a_batch() -> Batch:
    return Batch(Limits(1, 9, 2, 10.0), BlockCache(100, 4))


def counters(role: str = "decode", connector: str = "nixl", batch: Batch | None = None) -> tuple:
    families = Families()
    settings = EngineSettings(model="tiny", role=role, connector=connector)
    return TransferCounters(families, settings, batch or a_batch()), families


def test_a_decode_engine_has_vllms_families_with_its_labels_and_buckets() -> None:
    _, families = counters()
    ours, vllms = exposed(families.render().decode()), exposed(CAPTURE.read_text())
    assert set(ours) == set(vllms)
    for name, family in vllms.items():
        assert ours[name].type == family.type
        series = [
            {(entry.name, *sorted(entry.labels.items())) for entry in one.samples}
            for one in (ours[name], family)
        ]
        assert series[0] == series[1], name


def test_only_who_fetches_shows_who_waits() -> None:
    _, families = counters("prefill")
    assert b"kv_fetch_by_stage" not in families.render()
    _, families = counters("decode", "mooncake")
    assert b"kv_fetch_by_stage" in families.render()
    assert b"nixl" not in families.render()


@pytest.mark.parametrize("connector", ["nixl", "nixl-push", "mooncake"])
def test_what_happens_is_counted_where_it_is_shown(connector: str) -> None:
    count, families = counters("decode", connector)
    count.transferred(0.02, 10)
    count.failed()
    count.expired()
    text = families.render().decode()
    for line in (
        'vllm:nixl_bytes_transferred_sum{engine="0",model_name="tiny"} 1.31072e+06',
        'vllm:nixl_xfer_time_seconds_sum{engine="0",model_name="tiny"} 0.02',
        'vllm:nixl_num_failed_transfers_total{engine="0",model_name="tiny"} 1.0',
        'vllm:nixl_num_kv_expired_reqs_total{engine="0",model_name="tiny"} 1.0',
    ):
        assert (line in text) == connector.startswith("nixl")


def test_the_stages_follow_a_request() -> None:
    batch = a_batch()
    _, families = counters(batch=batch)

    def stages() -> list[float]:
        family = exposed(families.render().decode())["vllm:num_requests_kv_fetch_by_stage"]
        return [entry.value for entry in family.samples]

    batch.pause()
    batch.submit(Job(1, encode("prompt"), encode("answer"), remote=True), 0.0)
    assert stages() == [1, 0, 0]
    batch.resume(0.0)
    assert stages() == [0, 1, 0]
    batch.pause()
    batch.received(1, 2, 0.0)
    assert stages() == [0, 0, 1]
