import asyncio

import pytest

SLOW = {"prefill_tokens_per_s": 0.001}


def decode_params(p, request_id: str = "r1", **more: object) -> dict[str, object]:
    return {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "remote_engine_id": p.name,
        "remote_host": p.host,
        "remote_port": p.kv_port,
        "tp_size": 1,
        "remote_request_id": f"chatcmpl-{request_id}",
        **more,
    }


@pytest.mark.parametrize("order", ["prefill first", "decode first", "at once"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_the_legs_meet_in_any_order(
    a_pair, prefill, send, until, order: str, stream: bool, path: str
) -> None:
    p, d = await a_pair("nixl-push")

    async def decoded():
        if order == "prefill first":
            await until(lambda: p.leases == 1)
        return await send(d, path=path, stream=stream, kv_transfer_params=decode_params(p))

    async def prefilled():
        if order == "decode first":
            await until(lambda: d.waiting == 1)
        return await prefill(p, path=path)

    answer, leg = await asyncio.gather(decoded(), prefilled())
    assert (answer.status, leg.status, leg.params["transfer_mode"]) == (200, 200, "push")
    assert "deco" in answer.text
    assert (p.leases, p.transfers_served, p.kv_usage, d.kv_usage) == (0, 1, 0, 0)


@pytest.mark.parametrize(
    "missing", ["remote_engine_id", "remote_host", "remote_port", "tp_size", "remote_request_id"]
)
async def test_a_body_without_a_key_kills_the_decode_engine(a_pair, send, missing: str) -> None:
    p, d = await a_pair("nixl-push")
    params = decode_params(p)
    del params[missing]
    assert (await send(d, kv_transfer_params=params)).status == 500
    assert not d.alive


async def test_another_request_id_waits_until_its_client_leaves(
    a_pair, prefill, send, in_flight, until
) -> None:
    p, d = await a_pair("nixl-push")
    async with in_flight(send(d, "r2", kv_transfer_params=decode_params(p))) as answer:
        assert (await prefill(p, "r1")).status == 200
        await until(lambda: d.waiting == 1)
        assert (p.leases, answer.done()) == (1, False)
    await until(lambda: d.waiting == 0)


@pytest.mark.parametrize("fate", ["refuses", "dies"])
async def test_a_prefill_that_fails_leaves_the_decode_engine_waiting(
    a_pair, prefill, send, in_flight, until, fate: str
) -> None:
    p, d = await a_pair("nixl-push", prefill=SLOW)
    async with in_flight(send(d, kv_transfer_params=decode_params(p))) as answer:
        await until(lambda: d.waiting == 1)
        if fate == "refuses":
            assert (await prefill(p, max_tokens=2)).status == 400
        else:
            await until(lambda: p.transfers_awaited == 1)
            p.die()
            await p.death()
        assert (d.waiting, answer.done()) == (1, False)
    await until(lambda: d.waiting == 0)
    assert d.kv_usage == 0


@pytest.mark.parametrize("wrong", [{"remote_engine_id": "another"}, {"remote_port": 1}, {"tp_size": 4}])
async def test_a_handshake_that_fails_costs_one_request(a_pair, send, wrong) -> None:
    p, d = await a_pair("nixl-push")
    assert (await send(d, kv_transfer_params=decode_params(p, **wrong))).status == 500
    assert (d.alive, d.waiting, (await send(d)).status) == (True, 0, 200)


async def test_a_client_that_leaves_before_the_prompt_is_computed_frees_it(
    a_pair, prefill, send, in_flight, until
) -> None:
    p, d = await a_pair("nixl-push", prefill={"prefill_tokens_per_s": 300.0})
    async with in_flight(prefill(p)) as leg:
        async with in_flight(send(d, kv_transfer_params=decode_params(p))):
            await until(lambda: (d.waiting, p.running) == (1, 1))
        assert (await leg).status == 200
        await until(lambda: p.leases == 0)
    assert (p.kv_usage, d.kv_usage) == (0, 0)


async def test_a_registration_that_is_forgotten_waits_on(a_pair, prefill, send, in_flight, until) -> None:
    p, d = await a_pair("nixl-push", decode={"transfer_timeout_s": 0.0})
    async with in_flight(send(d, kv_transfer_params=decode_params(p))) as answer:
        await until(lambda: d.waiting == 1)
        assert (await prefill(p)).status == 200
        assert (d.waiting, answer.done()) == (1, False)
