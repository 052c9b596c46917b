import aiohttp
import pytest

from benchmarks.engine.faults import Die, Hang, NoParams, Reset, Status

PARAMS = {"do_remote_prefill": True}


async def test_without_a_connector_parameters_are_ignored(start, send) -> None:
    engine = await start()
    answer = await send(engine, stream=False, kv_transfer_params=PARAMS, bootstrap_room="x")
    assert (answer.status, answer.params, engine.alive, engine.kv_port) == (200, None, True, 0)


async def test_a_prefill_engine_may_forget_what_it_was_asked_for(a_pair, prefill) -> None:
    p, _ = await a_pair("nixl")
    p.set_faults([NoParams(times=1)])
    first, second = await prefill(p, "a"), await prefill(p, "b")
    assert (first.status, first.params, second.params is None) == (200, None, False)
    assert p.leases == 1


@pytest.mark.parametrize("fault", [Status(503), Reset(0), Die(0)])
async def test_a_prefill_that_fails_keeps_nothing(a_pair, prefill, until, fault) -> None:
    p, _ = await a_pair("nixl")
    p.set_faults([fault])
    if isinstance(fault, Status):
        assert (await prefill(p)).status == 503
    else:
        with pytest.raises(aiohttp.ClientError):
            await prefill(p)
    await until(lambda: (p.running, p.prefills) == (0, 0))
    assert (p.leases, p.kv_usage, p.alive) == (0, 0, not isinstance(fault, Die))


@pytest.mark.parametrize("fault", [Hang(1), Reset(1)])
async def test_a_prefill_whose_answer_is_lost_keeps_its_blocks_for_the_lease(
    a_pair, prefill, in_flight, until, fault
) -> None:
    p, _ = await a_pair("nixl")
    p.set_faults([fault])
    async with in_flight(prefill(p)) as leg:
        await until(lambda: p.leases == 1)
        if isinstance(fault, Reset):
            with pytest.raises(aiohttp.ClientError):
                await leg
    await until(lambda: p.prefills == 0)
    assert (p.leases, p.running) == (1, 0)


@pytest.mark.parametrize("fault", [Status(503), Reset(0), Reset(1), Die(0), Die(1)])
async def test_a_decode_that_fails_leaves_no_lease_behind_once_it_has_fetched(
    a_pair, prefill, send, until, fault
) -> None:
    p, d = await a_pair("nixl")
    params = (await prefill(p)).params
    d.set_faults([fault])
    if isinstance(fault, Status):
        assert (await send(d, stream=True, kv_transfer_params=params)).status == 503
    else:
        with pytest.raises(aiohttp.ClientError):
            await send(d, stream=True, kv_transfer_params=params)
    await until(lambda: (d.running, d.waiting) == (0, 0))
    began = not isinstance(fault, Status) and fault.after_tokens > 0
    assert (p.leases, d.alive) == (not began, not isinstance(fault, Die))


async def test_the_journal_has_both_legs(a_pair, prefill, send) -> None:
    p, d = await a_pair("nixl")
    params = (await prefill(p, "r9")).params
    await send(d, "r9", kv_transfer_params=params)
    legs = [next(iter(engine.requests)) for engine in (p, d)]
    assert [leg.header("x-request-id") for leg in legs] == ["r9", "r9"]
    assert b'"do_remote_decode": true' in legs[0].body
    assert params["remote_request_id"].encode() in legs[1].body
