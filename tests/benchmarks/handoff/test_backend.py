import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from benchmarks.handoff.added import backend
from benchmarks.handoff.backend import CONNECTORS, Ports
from benchmarks.overhead.load import request_bytes

MEETING = {
    "nixl-push": ({"x-request-id": "r1"}, {}),
    "mooncake": ({}, {"kv_transfer_params": {"transfer_id": "xfer-1"}}),
    "sglang": ({}, {"bootstrap_room": 7}),
}
"""Connector to the headers and the fields by which both legs meet."""


@pytest.fixture
async def ports() -> AsyncIterator[Ports]:
    async with backend() as found:
        yield found


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def asked(
    http: aiohttp.ClientSession, port: int, fields: dict[str, object], headers: dict[str, str] | None = None
) -> tuple[int, dict[str, object]]:
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with http.post(url, json={"prefill_ms": 1, **fields}, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_there_is_a_pair_for_each_connector(ports: Ports) -> None:
    assert set(ports.pairs) == set(CONNECTORS)
    assert len({ports.both, *(port for pair in ports.pairs.values() for port in pair)}) == 1 + 2 * len(
        CONNECTORS
    )


async def test_one_engine_may_do_both(ports: Ports, http: aiohttp.ClientSession) -> None:
    status, answer = await asked(http, ports.both, {})
    assert (status, answer["usage"]) == (
        200,
        {"prompt_tokens": 8, "total_tokens": 9, "completion_tokens": 1},
    )


async def test_a_decode_engine_takes_the_parameters_of_its_prefill_engine_and_wants_them(
    ports: Ports, http: aiohttp.ClientSession
) -> None:
    prefill, decode = ports.pairs["nixl"]
    _, answer = await asked(http, prefill, {"kv_transfer_params": {"do_remote_decode": True}})

    given = await asked(http, decode, {"kv_transfer_params": answer["kv_transfer_params"]})
    alone = await asked(http, decode, {})

    assert (given[0], alone[0]) == (200, 500)


@pytest.mark.parametrize("connector", MEETING)
@pytest.mark.parametrize("prefill_first", [True, False])
async def test_a_decode_engine_answers_when_the_prompt_is_computed(
    ports: Ports, http: aiohttp.ClientSession, connector: str, prefill_first: bool
) -> None:
    headers, fields = MEETING[connector]
    prefill, decode = ports.pairs[connector]
    async with asyncio.TaskGroup() as tasks:
        if prefill_first:
            await asked(http, prefill, fields, headers)
        answer = tasks.create_task(asked(http, decode, fields, headers))
        if not prefill_first:
            # Another request to the same engine has been answered: it has read the first one.
            assert (await asked(http, decode, {}))[0] == 500
            assert not answer.done()
            await asked(http, prefill, fields, headers)
    assert answer.result()[0] == 200


async def test_engines_that_share_a_store_wait_for_nobody(ports: Ports, http: aiohttp.ClientSession) -> None:
    assert [(await asked(http, port, {}))[0] for port in ports.pairs["http"]] == [200, 200]


@pytest.mark.parametrize("cut", [1, 50, 400])
async def test_requests_cut_anywhere_are_answered_once(ports: Ports, cut: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", ports.both)
    request = request_bytes("host", json.dumps({"prefill_ms": 0, "text": "b" * 600}).encode())
    for _ in range(2):
        writer.write(request[:cut])
        await writer.drain()
        writer.write(request[cut:])
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["object"] == "chat.completion"
    writer.close()
    await writer.wait_closed()
