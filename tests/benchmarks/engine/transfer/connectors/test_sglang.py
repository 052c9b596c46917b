import asyncio

import pytest


def in_room(p, room: object = 2**63 - 1) -> dict[str, object]:
    return {"bootstrap_host": p.host, "bootstrap_port": p.kv_port, "bootstrap_room": room}


@pytest.mark.parametrize("order", ["prefill first", "decode first", "at once"])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_legs_meet_in_a_room_with_the_same_body(
    a_pair, send, until, order: str, stream: bool
) -> None:
    p, d = await a_pair("sglang")

    async def leg(engine, waits: bool):
        if waits:
            await until(lambda: p.leases == 1 if engine is d else d.waiting == 1)
        return await send(engine, stream=stream, **in_room(p))

    decoded, prefilled = await asyncio.gather(
        leg(d, order == "prefill first"), leg(p, order == "decode first")
    )
    assert (decoded.status, prefilled.status) == (200, 200)
    assert "deco" in decoded.text
    assert '"error"' not in decoded.text + prefilled.text
    if not stream:
        assert prefilled.json["usage"]["completion_tokens"] == 1
    assert (p.leases, p.transfers_served, p.prefills, p.kv_usage, d.kv_usage) == (0, 1, 0, 0, 0)


@pytest.mark.parametrize("room", [None, "seven", [1, 2]])
async def test_no_server_of_a_pair_answers_without_a_room(a_pair, send, room) -> None:
    for engine in await a_pair("sglang"):
        answer = await send(engine, **{**in_room(engine), "bootstrap_room": room})
        assert (answer.status, answer.json["error"]["param"]) == (400, "bootstrap_room")
        assert (await send(engine)).status == 400


async def test_a_server_for_both_knows_nothing_of_rooms(start, send) -> None:
    both = await start(connector="sglang")
    assert (await send(both, bootstrap_room="any")).status == 200


async def test_a_decode_without_a_host_is_refused(a_pair, send) -> None:
    _, d = await a_pair("sglang")
    assert (await send(d, bootstrap_room=1)).status == 400


async def test_rooms_that_never_meet_are_errors_in_the_end(a_pair, send) -> None:
    p, d = await a_pair("sglang", transfer_timeout_s=0.3)
    answers = await asyncio.gather(send(p, **in_room(p, 1)), send(d, **in_room(p, 2)))
    assert [answer.status for answer in answers] == [500, 500]
    assert (p.leases, p.kv_usage, d.waiting, d.kv_usage) == (0, 0, 0, 0)


async def test_a_prefill_whose_client_leaves_keeps_nothing(a_pair, send, in_flight, until) -> None:
    p, _ = await a_pair("sglang")
    async with in_flight(send(p, **in_room(p))):
        await until(lambda: p.leases == 1)
    await until(lambda: (p.leases, p.prefills) == (0, 0))
    assert p.kv_usage == 0


async def test_a_prefill_server_that_dies_is_noticed(a_pair, send, in_flight, until) -> None:
    p, d = await a_pair("sglang")
    async with in_flight(send(d, **in_room(p))) as answer:
        await until(lambda: p.transfers_awaited == 1)
        p.die()
        assert (await answer).status == 500
