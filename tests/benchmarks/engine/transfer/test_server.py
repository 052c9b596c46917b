import msgspec
import pytest

from benchmarks.engine import EngineSettings, running
from benchmarks.engine.transfer.wire import Wanted


def wanted(key: str = "k", **more: object) -> bytes:
    given = {
        "connector": "nixl",
        "engine_id": "prefiller",
        "tensor_parallel_size": 1,
        "prompt": "",
        "waits": False,
    }
    return msgspec.json.encode(Wanted(key=key, **{**given, **more}))


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({}, 200),
        ({"engine_id": None, "tensor_parallel_size": None}, 200),
        ({"engine_id": "another"}, 409),
        ({"tensor_parallel_size": 2}, 409),
        ({"connector": "nixl-push"}, 409),
    ],
)
async def test_only_who_knows_the_engine_may_shake_hands(a_pair, http, wrong, status: int) -> None:
    p, _ = await a_pair("nixl")
    async with http.post(f"http://{p.host}:{p.kv_port}/handshake", data=wanted(**wrong)) as answer:
        assert answer.status == status


async def test_what_is_not_kept_is_not_found(a_pair, http) -> None:
    p, _ = await a_pair("nixl")
    async with http.post(f"http://{p.host}:{p.kv_port}/kv", data=wanted()) as answer:
        assert (answer.status, await answer.text()) == (404, "nothing is kept for k")


async def test_only_mooncake_can_be_queried(a_pair, http) -> None:
    p, _ = await a_pair("nixl")
    async with http.get(f"http://{p.host}:{p.kv_port}/query") as answer:
        assert answer.status == 404


async def test_a_port_in_use_is_an_error(a_pair) -> None:
    p, _ = await a_pair("nixl")
    with pytest.raises(OSError, match="in use"):
        async with running(EngineSettings(connector="nixl", kv_port=p.kv_port)):
            pytest.fail("the port is taken")
