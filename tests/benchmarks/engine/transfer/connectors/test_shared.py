import pytest


@pytest.mark.parametrize("connector", ["http", "lmcache"])
async def test_the_decode_engine_finds_what_its_peer_has_computed(
    a_pair, start, send, series, connector
) -> None:
    p, _ = await a_pair(connector)
    d = await start(
        name="decoder", role="decode", connector=connector, kv_peers=("127.0.0.1:1", f"{p.host}:{p.kv_port}")
    )
    assert (await send(p, max_tokens=1)).status == 200
    answer = await send(d)
    full = answer.prompt_tokens // 16 * 16
    assert (answer.status, answer.says, answer.cached) == (200, "decoder", full)
    source = 'vllm:prompt_tokens_by_source_total{engine="0",model_name="tiny",source='
    assert await series(d, f'{source}"external_kv_transfer"') == full
    assert await series(d, f'{source}"local_compute"') == answer.prompt_tokens - full
    assert (await send(d)).cached == (answer.prompt_tokens - 1) // 16 * 16


async def test_what_nobody_has_is_computed(a_pair, start, send, series) -> None:
    p, alone = await a_pair("http")
    d = await start(name="decoder", role="decode", connector="http", kv_peers=(f"{p.host}:{p.kv_port}",))
    for engine in (d, alone):
        answer = await send(engine)
        assert (answer.status, answer.says, answer.cached) == (200, "decoder", 0)
        assert await series(engine, "vllm:external_prefix_cache_hits_total") == 0


@pytest.mark.parametrize("wrong", [{"stream": True}, {"max_tokens": 2}])
async def test_a_prefill_engine_answers_one_token_only(a_pair, send, wrong) -> None:
    p, d = await a_pair("lmcache")
    assert (await send(p, **{"max_tokens": 1, **wrong})).status == 400
    assert (await send(d, **wrong)).status == 200
