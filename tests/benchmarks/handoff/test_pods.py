from typing import get_args

import pytest
import yaml

from benchmarks.handoff.pods import Pod, manifests
from controller.compile import compile_records
from controller.manifests.reader import Reader
from extproc.state import records
from extproc.state.records import KV_PORTS, ConnectorName, Record


def compiled(*objects: dict[str, object]) -> list[Record]:
    written = yaml.safe_dump_all(objects).encode()
    compilation = compile_records(Reader().read({"bench.yaml": written}))
    assert (compilation.problems, compilation.skipped) == ((), ())
    return list(compilation.records.values())


@pytest.mark.parametrize("connector", get_args(ConnectorName))
def test_a_pair_hands_every_prompt_off(connector: ConnectorName) -> None:
    kv_port = 5601 if connector in KV_PORTS else 0
    pods = [Pod("p", 8001, "prefill", kv_port), Pod("d", 8002, "decode")]

    found = compiled(*manifests("m", pods, connector))

    (server,) = [one for one in found if isinstance(one, records.ModelServer)]
    (route,) = [one for one in found if isinstance(one, records.ModelRoute)]
    prefill, decode = sorted(
        (one for one in found if isinstance(one, records.Pod)), key=lambda one: -ord(one.name[0])
    )
    assert route.model == "m"
    assert server.disaggregation is not None
    assert server.disaggregation.connector == connector
    assert connector == "sglang" or server.disaggregation.threshold == 0
    assert [(pod.name, pod.port) for pod in (prefill, decode)] == [("p", 8001), ("d", 8002)]
    assert prefill.members["m"].role == "prefill"
    assert prefill.members["m"].kv_port == kv_port
    assert decode.members["m"].role == "decode"
    assert prefill.members["m"].group == decode.members["m"].group


def test_engines_that_do_both_have_no_connector() -> None:
    found = compiled(*manifests("m", [Pod("a", 8001), Pod("b", 8002)], None))

    (server,) = [one for one in found if isinstance(one, records.ModelServer)]
    assert server.disaggregation is None
    assert [one.members for one in found if isinstance(one, records.Pod)] == [{}, {}]
