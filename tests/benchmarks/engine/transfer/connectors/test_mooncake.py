import asyncio

import pytest


def decode_params(p, transfer_id: str = "x1", **more: object) -> dict[str, object]:
    return {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "remote_bootstrap_addr": f"http://{p.host}:{p.kv_port}",
        "remote_engine_id": p.name,
        "transfer_id": transfer_id,
        **more,
    }


async def test_the_bootstrap_server_tells_who_is_there(a_pair, http) -> None:
    p, _ = await a_pair("mooncake", prefill={"tensor_parallel_size": 2, "engine_id": "eng-7"})
    async with http.get(f"http://{p.host}:{p.kv_port}/query") as answer:
        worker = f"tcp://{p.host}:{p.kv_port}"
        assert await answer.json() == {
            "0": {"engine_id": "eng-7", "worker_addr": {"0": {"0": worker}, "1": {"0": worker}}}
        }


@pytest.mark.parametrize("order", ["prefill first", "decode first", "at once"])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_legs_meet_in_any_order(a_pair, prefill, send, until, order: str, stream: bool) -> None:
    p, d = await a_pair("mooncake")

    async def decoded():
        if order == "prefill first":
            await until(lambda: p.leases == 1)
        return await send(d, "other-id", stream=stream, kv_transfer_params=decode_params(p))

    async def prefilled():
        if order == "decode first":
            await until(lambda: d.waiting == 1)
        return await prefill(p, params={"transfer_id": "x1"})

    answer, leg = await asyncio.gather(decoded(), prefilled())
    assert (answer.status, leg.status, leg.params) == (200, 200, None)
    assert (p.leases, p.transfers_served, d.waiting) == (0, 1, 0)


@pytest.mark.parametrize("missing", ["remote_engine_id", "remote_bootstrap_addr", "transfer_id"])
async def test_a_decode_without_a_field_waits_until_its_client_leaves(
    a_pair, send, in_flight, until, missing: str
) -> None:
    p, d = await a_pair("mooncake")
    params = decode_params(p)
    del params[missing]
    async with in_flight(send(d, kv_transfer_params=params)):
        await until(lambda: d.waiting == 1)
    await until(lambda: d.waiting == 0)
    assert d.alive


async def test_a_prefill_without_a_transfer_id_is_for_nothing(a_pair, prefill) -> None:
    p, _ = await a_pair("mooncake")
    assert (await prefill(p)).status == 200
    assert (p.leases, p.kv_usage) == (0, 0)


@pytest.mark.parametrize("wrong", [{"stream": True}, {"max_tokens": 2}])
async def test_a_prefill_that_nobody_would_read_is_refused(a_pair, prefill, wrong) -> None:
    p, _ = await a_pair("mooncake")
    assert (await prefill(p, params={"transfer_id": "x1"}, **wrong)).status == 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"remote_engine_id": "another"},
        {"remote_bootstrap_addr": "http://127.0.0.1:1"},
        {"remote_bootstrap_addr": "nowhere"},
    ],
)
async def test_a_prefill_engine_that_is_not_there_costs_one_request(a_pair, send, wrong) -> None:
    p, d = await a_pair("mooncake")
    assert (await send(d, kv_transfer_params=decode_params(p, **wrong))).status == 500
    assert (d.alive, d.waiting) == (True, 0)


async def test_a_leg_of_the_wrong_role_kills(a_pair, prefill, send) -> None:
    p, d = await a_pair("mooncake")
    assert (await send(p, kv_transfer_params=decode_params(p))).status == 500
    assert (await prefill(d, params={"transfer_id": "x1"})).status == 500
    assert (p.alive, d.alive) == (False, False)


async def test_a_prefill_that_never_comes_is_an_error_in_the_end(a_pair, send) -> None:
    p, d = await a_pair("mooncake", decode={"transfer_timeout_s": 0.2})
    assert (await send(d, kv_transfer_params=decode_params(p))).status == 500
    assert (d.waiting, d.kv_usage) == (0, 0)
