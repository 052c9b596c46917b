import asyncio
import io
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.engine.faults import NoTokens, SlowStart

CHAT = {"messages": [{"role": "user", "content": "hello " * 100}], "max_tokens": 8}


async def test_every_generation_endpoint_answers(start, http) -> None:
    engine = await start()
    requests = {
        "/v1/chat/completions": CHAT,
        "/v1/completions": {"prompt": "x"},
        "/v1/responses": {"input": "x"},
        "/v1/messages": {"model": "tiny", "max_tokens": 4, "messages": CHAT["messages"]},
    }
    for path, body in requests.items():
        for stream in (False, True):
            async with http.post(engine.url + path, json={**body, "stream": stream}) as answer:
                text = await answer.text()
                assert answer.status == 200
                assert ("data: " in text) == stream
                assert answer.headers["x-engine-name"] == "pod-a"
                if not stream:
                    assert "pod-a says" in text


async def test_pooling_endpoints_answer(start, http) -> None:
    engine = await start()
    async with http.post(f"{engine.url}/v1/embeddings", json={"input": ["a", "b"]}) as answer:
        assert len((await answer.json())["data"]) == 2
    async with http.post(f"{engine.url}/v1/rerank", json={"query": "a", "documents": ["a", "b"]}) as answer:
        assert [item["index"] for item in (await answer.json())["results"]] == [0, 1]


async def test_plain_paths_answer_as_vllms(start, http) -> None:
    engine = await start()
    for path in ("/health", "/ping"):
        async with http.get(engine.url + path) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
    async with http.get(f"{engine.url}/version") as answer:
        assert await answer.json() == {"version": "0.32.0"}


async def test_errors_answer_as_vllms(start, http, captures) -> None:
    engine = await start(max_model_len=4096)
    bodies = {
        "err_model": ("/v1/chat/completions", {"model": "nope", "messages": []}),
        "err_nomsg": ("/v1/chat/completions", {"model": "tiny"}),
        "err_badrange": ("/v1/chat/completions", {"temperature": -3, "messages": []}),
        "err_maxtok": ("/v1/completions", {"prompt": "x", "max_tokens": 100_000}),
        "err_toolong": ("/v1/completions", {"prompt": "x" * 4 * 4097}),
        "err_404": ("/v1/nothing", {}),
        "lora_unload_again": ("/v1/unload_lora_adapter", {"lora_name": "lora-b"}),
    }
    for name, (path, body) in bodies.items():
        async with http.post(engine.url + path, json=body) as answer:
            assert (answer.status, await answer.json()) == (captures[name].status, captures[name].json)
    async with http.get(f"{engine.url}/v1/chat/completions") as answer:
        assert (answer.status, await answer.json()) == (405, captures["err_405"].json)
        assert answer.headers["allow"] == captures["err_405"].headers["allow"]


async def test_a_request_id_is_echoed_and_names_the_answer(start, http, captures) -> None:
    engine = await start()
    headers = {"X-Request-Id": "my-req-0001"}
    async with http.post(f"{engine.url}/v1/chat/completions", json=CHAT, headers=headers) as answer:
        assert answer.headers["x-request-id"] == captures["chat1"].headers["x-request-id"]
        assert (await answer.json())["id"] == captures["chat1"].json["id"]
    async with http.post(f"{engine.url}/v1/chat/completions", json=CHAT) as answer:
        assert (await answer.json())["id"] == f"chatcmpl-{answer.headers['x-request-id']}"


async def test_a_repeated_prompt_is_a_cache_hit(start, http, captures, same_shape) -> None:
    engine = await start(block_size=32)
    bodies = []
    for _ in range(2):
        async with http.post(f"{engine.url}/v1/chat/completions", json=CHAT) as answer:
            bodies.append(await answer.json())
    miss, hit = (body["usage"]["prompt_tokens_details"] for body in bodies)
    assert miss["cached_tokens"] == 0
    assert hit["cached_tokens"] == miss["created_cache_tokens"] > 0
    assert same_shape(bodies[0], captures["chat1"].json)


async def ask(http, engine, prompt: str, **headers: str) -> tuple[int, str | None, dict]:
    url, body = f"{engine.url}/v1/completions", {"prompt": prompt, "max_tokens": 2}
    async with http.post(url, json=body, headers=headers) as answer:
        return answer.status, answer.headers.get("x-engine-rank"), await answer.json()


async def test_a_header_picks_the_rank_and_each_has_a_cache_of_its_own(start, http) -> None:
    engine = await start(data_parallel_size=2)
    cached = []
    for rank in ("0", "1", "1", "0"):
        status, served_by, body = await ask(http, engine, "x" * 200, **{"X-data-parallel-rank": rank})
        assert (status, served_by) == (200, rank)
        cached.append(body["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached == [0, 0, 48, 48]
    assert [entry.rank for entry in engine.requests] == [0, 1, 1, 0]
    async with http.get(f"{engine.url}/metrics") as answer:
        text = await answer.text()
    for rank in ("0", "1"):
        assert f'vllm:prefix_cache_hits_total{{engine="{rank}",model_name="tiny"}} 48.0' in text


async def test_a_rank_that_is_not_there_is_refused_as_by_vllm(start, http, captures) -> None:
    engine = await start()
    status, served_by, body = await ask(http, engine, "x", **{"X-data-parallel-rank": "3"})
    assert (status, body) == (captures["dp_header_bad"].status, captures["dp_header_bad"].json)
    assert served_by is None
    assert [entry.rank for entry in engine.requests] == [None]
    for rank in ("-1", "1"):
        assert (await ask(http, engine, "x", **{"X-data-parallel-rank": rank}))[0] == 400
    for no_number in ("", "first"):
        assert (await ask(http, engine, "x", **{"X-data-parallel-rank": no_number}))[:2] == (200, "0")


async def test_without_a_header_the_least_loaded_rank_serves(start, http, until) -> None:
    engine = await start(data_parallel_size=2, inter_token_s=60.0)
    stream = {"prompt": "x", "stream": True, "max_tokens": 9}
    answers = [await http.post(f"{engine.url}/v1/completions", json=stream) for _ in range(4)]
    assert [answer.headers["x-engine-rank"] for answer in answers] == ["0", "1", "0", "1"]
    for answer in answers:
        answer.close()
    await until(lambda: engine.running == 0)


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_without_the_option_usage_does_not_say_what_was_cached(start, http, path: str) -> None:
    engine = await start(prompt_tokens_details=False)
    body = {**CHAT, "prompt": "x", "stream_options": {"include_usage": True}, "stream": True}
    async with http.post(f"{engine.url}/v1/{path}", json=body) as answer:
        text = await answer.text()
        assert '"usage":{"prompt_tokens":' in text
        assert "cached_tokens" not in text
    async with http.post(f"{engine.url}/v1/{path}", json={**CHAT, "prompt": "x"}) as answer:
        assert (await answer.json())["usage"]["prompt_tokens_details"] is None


async def test_another_salt_or_adapter_is_no_cache_hit(start, http) -> None:
    engine = await start(loras=("sql",))
    for extra in ({}, {"cache_salt": "s"}, {"model": "sql"}):
        async with http.post(f"{engine.url}/v1/chat/completions", json={**CHAT, **extra}) as answer:
            assert (await answer.json())["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_an_adapter_is_served_between_loading_and_unloading(start, http) -> None:
    engine = await start()
    body = {**CHAT, "model": "sql"}
    for verb, status in (("load", 404), ("unload", 200)):
        async with http.post(f"{engine.url}/v1/chat/completions", json=body) as answer:
            assert answer.status == status
            assert status == 404 or (await answer.json())["model"] == "sql"
        change = {"lora_name": "sql", "lora_path": "/adapters/sql"}
        async with http.post(f"{engine.url}/v1/{verb}_lora_adapter", json=change) as answer:
            assert answer.status == 200
            assert (await answer.text()).startswith("Success")
    async with http.get(f"{engine.url}/v1/models") as answer:
        assert [card["id"] for card in (await answer.json())["data"]] == ["tiny"]


async def test_without_adapters_their_endpoints_are_not_there(start, http) -> None:
    engine = await start(max_loras=0)
    async with http.post(f"{engine.url}/v1/load_lora_adapter", json={}) as answer:
        assert answer.status == 404


async def test_tokens_can_be_asked_for(start, http) -> None:
    engine = await start()
    async with http.post(f"{engine.url}/tokenize", json={"prompt": "hello there"}) as answer:
        tokens = (await answer.json())["tokens"]
    async with http.post(f"{engine.url}/detokenize", json={"tokens": tokens}) as answer:
        assert await answer.json() == {"prompt": "hello there"}


async def test_tokens_are_refused_when_told_so(start, http) -> None:
    engine = await start()
    engine.set_faults([NoTokens(503)])
    async with http.post(f"{engine.url}/tokenize", json={"prompt": "hello there"}) as answer:
        assert answer.status == 503
    async with http.post(f"{engine.url}/v1/chat/completions", json=CHAT) as answer:
        assert answer.status == 200


async def test_metrics_count_what_was_served(start, http) -> None:
    engine = await start()
    async with http.post(f"{engine.url}/v1/chat/completions", json=CHAT) as answer:
        usage = (await answer.json())["usage"]
    async with http.get(f"{engine.url}/metrics") as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=")
        families = text_string_to_metric_families(await answer.text())
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert values["vllm:prompt_tokens_total"] == usage["prompt_tokens"]
    assert values["vllm:generation_tokens_total"] == usage["completion_tokens"]
    assert values["http_requests_total"] == 1


async def test_a_slow_start_answers_503_until_it_ends(start, http) -> None:
    engine = await start(faults=(SlowStart(60.0),))
    for path in ("/health", "/metrics", "/v1/models"):
        async with http.get(engine.url + path) as answer:
            assert answer.status == 503
    async with http.post(f"{engine.url}/v1/chat/completions", json=CHAT) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (503, 503)
    async with http.post(f"{engine.url}/_engine/faults", json=[]) as answer:
        assert answer.status == 200
    async with http.get(f"{engine.url}/health") as answer:
        assert answer.status == 200


async def test_a_body_of_five_megabytes_is_served(start, http) -> None:
    engine = await start(max_model_len=2**21, num_blocks=2**17)
    body = io.BytesIO(json.dumps({"prompt": "x" * 5_000_000, "max_tokens": 2}).encode())
    async with http.post(f"{engine.url}/v1/completions", data=body) as answer:
        assert (await answer.json())["usage"]["prompt_tokens"] == 1_250_000


@pytest.mark.parametrize("raw", [b"", b"{", b"[" * 10_000, b'{"model":[],"messages":[]}', b"\xff" * 100])
async def test_hostile_bodies_get_an_error_and_harm_nothing(start, http, raw: bytes) -> None:
    engine = await start()
    paths = ("chat/completions", "completions", "embeddings", "rerank", "responses", "messages")
    for path in (*(f"/v1/{name}" for name in paths), "/tokenize", "/detokenize", "/v1/load_lora_adapter"):
        async with http.post(engine.url + path, data=raw) as answer:
            assert answer.status == 400
            assert "error" in await answer.json()
    assert engine.running == 0


async def test_many_slow_streams_run_at_once(start, http) -> None:
    engine = await start(inter_token_s=0.4, max_running=400)
    body = {**CHAT, "stream": True}

    async def one() -> str:
        async with http.post(f"{engine.url}/v1/chat/completions", json=body) as answer:
            return await answer.text()

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one()) for _ in range(200)]
    for task in running:
        events = task.result().strip().split("\n\n")
        assert events[-1] == "data: [DONE]"
        assert len([event for event in events if '"content":' in event]) == 9
        assert json.loads(events[-2][6:])["choices"][0]["finish_reason"] == "length"
    assert (engine.running, engine.kv_usage) == (0, 0)
