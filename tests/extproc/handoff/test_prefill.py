import asyncio
import json
from random import Random

import pytest

from extproc.handoff.connector import NoParameters
from extproc.handoff.engines import EngineFailed
from extproc.handoff.prefill import Failed, Prefills


@pytest.fixture
def prefills(engines, clock):
    return Prefills(engines, Random(3), clock)


def of_status(status):
    return Failed.of(EngineFailed("status", f"status {status}", status, b"words"))


@pytest.mark.parametrize("kind", ["refused", "timeout", "broken"])
def test_an_engine_that_fails_is_a_matter_of_the_engine(kind):
    failed = Failed.of(EngineFailed(kind, "why"))

    assert (failed.result, failed.final) == (kind, False)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_some_4xx_are_a_verdict_on_the_request(status):
    failed = of_status(status)

    assert (failed.result, failed.final, failed.status, failed.body) == ("rejected", True, status, b"words")


@pytest.mark.parametrize("status", [201, 204, 302, 401, 403, 404, 408, 425, 429, 499, 500, 502, 503, 504])
def test_other_statuses_are_not(status):
    failed = of_status(status)

    assert (failed.result, failed.final, failed.status) == ("status", False, status)


def test_what_a_decode_engine_lacks_is_said():
    assert Failed.of(NoParameters("absent")).result == "no-parameters"


def test_a_defect_is_logged_with_its_place_and_without_its_words(caplog):
    with pytest.raises(KeyError) as raised:
        {}["the prompt"]

    assert Failed.of(raised.value).result == "defect"
    assert "KeyError at" in caplog.text
    assert __file__ in caplog.text
    assert "the prompt" not in caplog.text


@pytest.mark.parametrize("result", ["refused", "broken", "status", "no-parameters", "defect", "left"])
def test_a_client_is_told_that_no_prompt_was_computed(result):
    answer = Failed(result).answer()

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "prefill_failed")


def test_a_client_is_told_that_it_took_too_long():
    answer = Failed("timeout").answer()

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (504, "prefill_timeout")


async def test_a_transfer_comes_from_its_endpoint(prefills, handoff, start):
    engine = await start()
    endpoint = engine.endpoint("p", rank=1)

    transfer = await prefills.transfer(handoff("nixl", endpoint), endpoint)

    assert (transfer.address, transfer.source, transfer.rank) == (engine.address, engine.source, 1)
    assert (transfer.request_id, transfer.api, transfer.tensor_parallel) == ("r-1", "chat", 2)
    assert transfer.engine_id == "eng-1"
    assert engine.queries == 0


async def test_rooms_are_drawn_anew_and_fit_a_signed_integer(prefills, handoff, nobody):
    endpoint = nobody().endpoint("p")
    rooms = {(await prefills.transfer(handoff("sglang", endpoint), endpoint)).room for _ in range(50)}

    assert len(rooms) == 50
    assert all(0 <= room < 2**63 for room in rooms)


async def test_what_was_computed_has_counts_and_seconds(prefills, handoff, start, clock, until):
    engine = await start(
        answer=b'{"usage":{"prompt_tokens":90,"prompt_tokens_details":{"cached_tokens":32}}}',
        gate=asyncio.Event(),
    )
    endpoint = engine.endpoint("p")
    given = handoff("lmcache", endpoint)
    async with asyncio.TaskGroup() as tasks:
        computing = tasks.create_task(prefills.compute(given, await prefills.transfer(given, endpoint)))
        await until(lambda: engine.open)
        clock.now += 2.5
        engine.gate.set()

    computed = computing.result()
    assert (computed.reply.prompt_tokens, computed.reply.cached_tokens, computed.seconds) == (90, 32, 2.5)


async def test_what_we_say_of_the_request_counts_more_than_what_the_client_says(prefills, handoff, start):
    engine = await start()
    endpoint = engine.endpoint("p", rank=0)
    given = handoff(
        "nixl",
        endpoint,
        headers={"x-request-id": "forged", "content-type": "text/plain", "x-session-id": "s"},
    )

    await prefills.compute(given, await prefills.transfer(given, endpoint))

    headers = engine.asked[0].headers
    assert (headers["x-request-id"], headers["content-type"]) == ("r-1", "application/json")
    assert (headers["x-session-id"], headers["x-data-parallel-rank"]) == ("s", "0")
