import asyncio
from contextlib import AsyncExitStack

import aiohttp
import pytest

from benchmarks.engine import EngineSettings, running
from benchmarks.engine.journal import Outcome

NEVER_DONE = {"transfer_s_per_token": 1000.0}
SLOW = {"prefill_tokens_per_s": 0.001}


async def test_a_prefill_answers_where_its_blocks_are(a_pair, prefill) -> None:
    p, _ = await a_pair("nixl", prefill={"engine_id": "eng-1"})
    answer = await prefill(p)
    params = answer.params
    assert answer.json["usage"]["completion_tokens"] == 1
    assert params.pop("remote_request_id").startswith("chatcmpl-r1-")
    assert params == {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "remote_block_ids": [list(range(1, -(-answer.prompt_tokens // 16) + 1))],
        "remote_engine_id": "eng-1",
        "remote_host": "127.0.0.1",
        "remote_port": p.kv_port,
        "tp_size": 1,
        "dcp_size": 1,
        "pp_size": 1,
        "remote_num_tokens": answer.prompt_tokens,
        "remote_blocks_expiry_time": None,
        "transfer_mode": "pull",
        "remote_prefill_cached_tokens": 0,
    }
    assert (p.leases, p.running) == (1, 0)
    assert p.kv_usage > 0


async def test_the_decode_engine_fetches_the_prompt_and_the_prefill_engine_forgets_it(
    a_pair, prefill, send, series
) -> None:
    p, d = await a_pair("nixl")
    params = (await prefill(p)).params
    answer = await send(d, kv_transfer_params=params)
    assert (answer.status, answer.says, answer.cached, answer.params) == (200, "decoder", 0, None)
    assert (p.leases, p.kv_usage, p.transfers_served, d.kv_usage) == (0, 0, 1, 0)
    tokens = answer.prompt_tokens
    assert await series(d, "vllm:external_prefix_cache_queries_total") == tokens
    assert await series(d, "vllm:external_prefix_cache_hits_total") == tokens
    source = 'vllm:prompt_tokens_by_source_total{engine="0",model_name="tiny",source='
    assert await series(d, f'{source}"external_kv_transfer"') == tokens
    assert await series(d, f'{source}"local_compute"') == 0
    assert await series(d, "vllm:nixl_xfer_time_seconds_count") == 1
    assert await series(p, "vllm:nixl_xfer_time_seconds_count") == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_streamed_answer_follows_a_transfer_too(a_pair, prefill, send, path: str) -> None:
    p, d = await a_pair("nixl")
    params = (await prefill(p, path=path)).params
    answer = await send(d, path=path, stream=True, kv_transfer_params=params)
    assert answer.status == 200
    assert answer.text.endswith("data: [DONE]\n\n")
    assert '"error"' not in answer.text
    assert (p.leases, p.transfers_served) == (0, 1)


async def test_usage_tells_what_the_prefill_engine_had_cached(a_pair, prefill, send) -> None:
    p, d = await a_pair("nixl")
    await send(d, kv_transfer_params=(await prefill(p, "r1")).params)
    params = (await prefill(p, "r2")).params
    assert params["remote_prefill_cached_tokens"] > 0
    assert (await send(d, kv_transfer_params=params)).cached == params["remote_prefill_cached_tokens"]


async def test_only_what_is_missing_is_fetched(a_pair, prefill, send, series) -> None:
    p, d = await a_pair("nixl")
    first = await send(d, kv_transfer_params=(await prefill(p)).params)
    await send(d, kv_transfer_params=(await prefill(p)).params)
    came = await series(d, "vllm:external_prefix_cache_hits_total") - first.prompt_tokens
    assert 0 < came <= 16
    assert await series(d, "vllm:prefix_cache_hits_total") == first.prompt_tokens - came


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"stream": True}, "stream"),
        ({"max_tokens": 2}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"max_tokens": None}, "max_tokens"),
    ],
)
async def test_a_prefill_that_nobody_would_read_is_refused(a_pair, prefill, wrong, field: str) -> None:
    p, _ = await a_pair("nixl")
    answer = await prefill(p, **wrong)
    assert (answer.status, answer.json["error"]["param"]) == (400, field)
    assert (p.leases, p.running) == (0, 0)


@pytest.mark.parametrize("params", [None, {}, {"do_remote_decode": False}])
async def test_without_parameters_either_engine_just_answers(a_pair, send, params) -> None:
    for engine in await a_pair("nixl"):
        answer = await send(engine, kv_transfer_params=params)
        assert (answer.status, answer.says, answer.params) == (200, engine.name, None)
        assert engine.leases == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"remote_engine_id": "another"},
        {"remote_request_id": "chatcmpl-r1-00000000"},
        {"remote_port": 1},
        {"remote_port": "none"},
        {"remote_host": None},
        {"tp_size": 2},
    ],
)
async def test_a_transfer_that_fails_costs_one_request_but_not_the_engine(
    a_pair, prefill, send, series, wrong
) -> None:
    p, d = await a_pair("nixl")
    params = (await prefill(p)).params
    answer = await send(d, kv_transfer_params={**params, **wrong})
    assert (answer.status, answer.json["error"]["message"]) == (500, "Internal server error")
    assert await series(d, "vllm:nixl_num_failed_transfers_total") == 1
    assert await series(d, 'vllm:request_success_total{engine="0",finished_reason="error"') == 1
    assert (d.alive, d.running, d.waiting, d.kv_usage, p.leases) == (True, 0, 0, 0, 1)
    assert (await send(d)).says == "decoder"


async def test_a_failed_transfer_of_a_streamed_answer_is_an_event(a_pair, prefill, send) -> None:
    p, d = await a_pair("nixl")
    params = {**(await prefill(p)).params, "remote_engine_id": "another"}
    answer = await send(d, stream=True, kv_transfer_params=params)
    assert answer.status == 200
    assert answer.text.startswith('data: {"error":{"message":"Internal server error"')
    assert d.running == 0


async def test_blocks_of_another_prompt_are_not_taken(a_pair, prefill, send) -> None:
    p, d = await a_pair("nixl")
    params = (await prefill(p)).params
    assert (await send(d, prompt="something else", kv_transfer_params=params)).status == 500


async def test_parameters_serve_once(a_pair, prefill, send) -> None:
    p, d = await a_pair("nixl")
    params = (await prefill(p)).params
    answers = [(await send(d, kv_transfer_params=params)).status for _ in range(2)]
    assert answers == [200, 500]


async def test_answers_to_one_prompt_share_a_transfer_and_several_prompts_have_none(
    a_pair, prefill, send
) -> None:
    p, d = await a_pair("nixl", decode={"max_running": 1})
    params = (await prefill(p)).params
    answer = await send(d, n=3, kv_transfer_params=params)
    assert (answer.status, len(answer.json["choices"]), p.transfers_served) == (200, 3, 1)
    several = await send(d, path="/v1/completions", prompt=["a", "b"], kv_transfer_params=params)
    assert several.status == 400


async def test_a_dead_prefill_engine_costs_one_request(a_pair, prefill, send) -> None:
    p, d = await a_pair("nixl")
    first, second = (await prefill(p, "a")).params, (await prefill(p, "b", prompt="other")).params
    assert (await send(d, kv_transfer_params=first)).status == 200
    p.die()
    await p.death()
    assert (await send(d, prompt="other", kv_transfer_params=second)).status == 500
    assert (await send(d, prompt="other")).status == 200


async def test_a_prefill_engine_that_dies_during_a_transfer_costs_one_request(
    a_pair, prefill, send, in_flight, series, until
) -> None:
    p, d = await a_pair("nixl", prefill=NEVER_DONE)
    params = (await prefill(p)).params
    async with in_flight(send(d, kv_transfer_params=params)) as answer:
        await until(lambda: p.transfers_open == 1)
        deferred = 'vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="deferred"'
        assert (d.waiting, d.running, await series(d, deferred)) == (1, 0, 1)
        p.die()
        assert (await answer).status == 500
    assert (p.leases, d.waiting, d.kv_usage) == (0, 0, 0)


@pytest.mark.parametrize("missing", ["all", "remote_block_ids"])
async def test_a_body_without_block_ids_kills_the_decode_engine(
    a_pair, prefill, send, in_flight, until, http, missing: str
) -> None:
    p, d = await a_pair("nixl", decode={"inter_token_s": 1000.0})
    params = {"do_remote_prefill": True}
    if missing != "all":
        params = {name: value for name, value in (await prefill(p)).params.items() if name != missing}
    async with in_flight(send(d, "other")) as other:
        await until(lambda: d.running == 1)
        answer = await send(d, "killer", kv_transfer_params=params)
        assert (answer.status, answer.json["error"]["message"][:10]) == (500, "EngineCore")
        assert not d.alive
        with pytest.raises(aiohttp.ClientError):
            await other
    await d.death()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(f"{d.url}/health")
    assert p.alive


@pytest.mark.parametrize("missing", ["remote_engine_id", "remote_request_id", "remote_host", "remote_port"])
async def test_a_body_with_block_ids_but_no_address_waits_until_its_client_leaves(
    a_pair, prefill, send, in_flight, until, missing: str
) -> None:
    p, d = await a_pair("nixl")
    params = (await prefill(p)).params
    del params[missing]
    async with in_flight(send(d, kv_transfer_params=params)):
        await until(lambda: d.waiting == 1)
    await until(lambda: d.waiting == 0)
    assert (d.kv_usage, d.alive) == (0, True)


async def test_leaving_during_a_transfer_frees_both_engines(a_pair, prefill, send, in_flight, until) -> None:
    p, d = await a_pair("nixl", **NEVER_DONE)
    params = (await prefill(p)).params
    async with in_flight(send(d, kv_transfer_params=params)):
        await until(lambda: p.transfers_open == 1)
        assert p.leases == 1
    await until(lambda: (d.waiting, p.leases) == (0, 0))
    assert (d.kv_usage, p.kv_usage, p.transfers_served) == (0, 0, 0)


async def test_leaving_before_a_transfer_frees_both_engines(a_pair, prefill, send, in_flight, until) -> None:
    p, d = await a_pair("nixl", decode={"max_running": 1, "inter_token_s": 1000.0})
    params = (await prefill(p)).params
    async with in_flight(send(d, prompt="busy")):
        await until(lambda: d.running == 1)
        async with in_flight(send(d, kv_transfer_params=params)):
            await until(lambda: d.waiting == 1)
            assert p.leases == 1
        await until(lambda: (d.waiting, p.leases) == (0, 0))


async def test_leaving_a_prefill_keeps_nothing(a_pair, prefill, in_flight, until) -> None:
    p, _ = await a_pair("nixl", prefill=SLOW)
    async with in_flight(prefill(p)):
        await until(lambda: p.prefills == 1)
    await until(lambda: p.prefills == 0)
    assert (p.running, p.leases, p.kv_usage) == (0, 0, 0)


async def test_kept_blocks_leave_no_room_for_others_until_they_are_fetched(
    a_pair, prefill, send, in_flight, until
) -> None:
    p, d = await a_pair("nixl", max_model_len=320, num_blocks=20, prefill={"max_running": 8})
    prompts = [letter * 800 for letter in "ab"]
    params = (await prefill(p, "a", prompt=prompts[0])).params
    async with in_flight(prefill(p, "b", prompt=prompts[1])) as other:
        await until(lambda: p.waiting == 1)
        assert (await send(d, prompt=prompts[0], kv_transfer_params=params)).status == 200
        assert (await other).status == 200
    assert p.leases == 1


async def test_blocks_that_nobody_fetches_in_time_are_freed(prefill, send, series) -> None:
    now = 100.0
    knobs = {
        "model": "tiny", "connector": "nixl", "inter_token_s": 0.0, "prefill_tokens_per_s": float("inf"),
        "handshake_s": 0.0, "transfer_s_per_token": 0.0,
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        early = EngineSettings(name="p", role="prefill", kv_lease_s=30.0, **knobs)
        p = await stack.enter_async_context(running(early, clock=lambda: now))
        d = await stack.enter_async_context(running(EngineSettings(name="d", role="decode", **knobs)))
        params = (await prefill(p)).params
        now += 29.9
        assert p.leases == 1
        now += 0.2
        assert (p.leases, p.kv_usage) == (0, 0)
        assert await series(p, "vllm:nixl_num_kv_expired_reqs_total") == 1
        assert (await send(d, kv_transfer_params=params)).status == 500


async def test_sixteen_pairs_at_once(a_pair, prefill, send) -> None:
    p, d = await a_pair("nixl", transfer_s_per_token=0.00001)

    async def both(number: int) -> tuple[int, str]:
        prompt = f"{number} " * 300
        params = (await prefill(p, f"r{number}", prompt=prompt)).params
        answer = await send(d, f"r{number}", prompt=prompt, kv_transfer_params=params)
        return answer.status, answer.says

    assert await asyncio.gather(*map(both, range(16))) == [(200, "decoder")] * 16
    assert (p.transfers_served, p.leases, p.prefills, d.running, d.waiting) == (16, 0, 0, 0, 0)
    assert d.requests.count(Outcome.FINISHED) == 16


async def test_what_was_fetched_is_cached(a_pair, prefill, send) -> None:
    p, d = await a_pair("nixl")
    params = (await prefill(p)).params
    await send(d, kv_transfer_params=params)
    again = await send(d)
    assert again.cached == (again.prompt_tokens - 1) // 16 * 16
