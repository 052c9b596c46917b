import asyncio

import aiohttp
import pytest

ASK = {"prompt": "x" * 200, "max_tokens": 1}


async def call(http: aiohttp.ClientSession, method: str, url: str) -> object:
    async with http.request(method, url) as answer:
        assert answer.status == 200
        return await answer.json()


async def cached(http: aiohttp.ClientSession, url: str) -> int:
    async with http.post(f"{url}/v1/completions", json=ASK) as answer:
        return (await answer.json())["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize(
    ("halt", "go_on", "probe"),
    [
        (("/pause", {"status": "paused"}), ("/resume", {"status": "resumed"}), "is_paused"),
        (
            ("/sleep?level=1", {"status": "sleeping", "level": 1}),
            ("/wake_up", {"status": "awake", "tags": None}),
            "is_sleeping",
        ),
    ],
)
async def test_requests_hang_and_health_stays_200(start, http, until, halt, go_on, probe) -> None:
    engine = await start()
    assert await call(http, "GET", f"{engine.url}/{probe}") == {probe: False}
    assert await call(http, "POST", engine.url + halt[0]) == halt[1]
    assert await call(http, "GET", f"{engine.url}/{probe}") == {probe: True}
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(cached(http, engine.url))
        await until(lambda: engine.waiting == 1)
        async with http.get(f"{engine.url}/health") as answer:
            assert answer.status == 200
        assert (engine.running, asking.done()) == (0, False)
        assert await call(http, "POST", engine.url + go_on[0]) == go_on[1]
    assert asking.result() == 0
    assert await call(http, "GET", f"{engine.url}/{probe}") == {probe: False}


async def test_the_answers_are_vllms(start, http, captures) -> None:
    engine = await start()
    for probe in ("is_sleeping", "is_paused"):
        async with http.get(f"{engine.url}/{probe}") as answer:
            assert await answer.text() == captures[probe].body


async def test_sleep_is_told_by_the_metrics(start, http) -> None:
    engine = await start()
    await call(http, "POST", f"{engine.url}/sleep?level=2")
    async with http.get(f"{engine.url}/metrics") as answer:
        text = await answer.text()
    assert 'vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="awake"} 0.0' in text
    assert 'vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="discard_all"} 1.0' in text


async def test_an_unknown_level_changes_nothing(start, http) -> None:
    engine = await start()
    async with http.post(f"{engine.url}/sleep?level=3") as answer:
        assert answer.status == 400
        assert "level must be" in (await answer.json())["error"]["message"]
    assert await call(http, "GET", f"{engine.url}/is_sleeping") == {"is_sleeping": False}


async def test_a_reset_forgets_what_is_cached(start, http) -> None:
    engine = await start()
    assert [await cached(http, engine.url) for _ in range(2)] == [0, 48]
    assert await call(http, "POST", f"{engine.url}/reset_prefix_cache") == {"success": True}
    assert await cached(http, engine.url) == 0


async def test_a_reset_fails_while_requests_run(start, http, until) -> None:
    engine = await start(inter_token_s=60.0)
    stream = await http.post(f"{engine.url}/v1/completions", json={**ASK, "max_tokens": 9, "stream": True})
    await until(lambda: engine.running == 1)
    assert await call(http, "POST", f"{engine.url}/reset_prefix_cache") == {"success": False}
    stream.close()
