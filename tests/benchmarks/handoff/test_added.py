import json
from collections import Counter

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.handoff.added import MODES, Load, chat_body, gateway, latencies_s, measure
from benchmarks.handoff.backend import CONNECTORS
from benchmarks.stack import Stack


@pytest.mark.parametrize("size", [150, 1000, 32_000])
def test_bodies_have_the_size_asked_for(size: int) -> None:
    body = chat_body("nixl-push", size, 160)
    assert len(body) == size
    assert (json.loads(body)["model"], json.loads(body)["prefill_ms"]) == ("nixl-push", 160)


async def computed(stack: Stack) -> Counter[str]:
    """Prompts that prefill engines have computed, by ModelServer."""
    found: Counter[str] = Counter()
    async with aiohttp.ClientSession() as http:
        for admin in stack.admins:
            async with http.get(f"{admin}/metrics") as answer:
                text = await answer.text()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name == "kvoy_prefills_total" and sample.labels["result"] == "computed":
                        found[sample.labels["server"].rpartition("/")[2]] += int(sample.value)
    return found


async def test_each_way_is_measured_and_only_one_engine_for_both_goes_without_a_hop() -> None:
    load = Load(at_a_time=2, prefill_ms=1)
    async with gateway() as stack:
        sent = {
            mode: len(await latencies_s(stack.url, chat_body(mode, 1000, 1), load, 0.05)) for mode in MODES
        }
        assert await computed(stack) == {connector: sent[connector] for connector in CONNECTORS}
        measured = [each async for each in measure(stack, [150], 0.01)]

    assert Counter(each.load.at_a_time for each in measured) == {1: len(MODES), 16: len(MODES)}
    assert [each.mode for each in measured] == [*MODES, *MODES]
    assert all(seconds > 0 for each in measured for seconds in each.seconds)
    assert all(each.service_cpu_s > 0 and each.envoy_cpu_s > 0 for each in measured)
    assert all(len(each.seconds) >= each.load.at_a_time for each in measured)
