from contextlib import aclosing

import pytest

from extproc.collect.kv.replay import Silent, replay
from extproc.collect.kv.sockets import Unreachable

PATIENCE_S = 20.0


async def repeated(sockets, publisher, start, timeout_s=PATIENCE_S):
    async with aclosing(replay(sockets, publisher.replay_endpoint, start, timeout_s)) as messages:
        return [(message.seq, message.payload) async for message in messages]


@pytest.mark.parametrize("topics", [True, False])
async def test_batches_are_repeated_from_a_number_on(sockets, publish, topics):
    publisher = publish()
    publisher.topics = topics
    for number in range(4):
        publisher.send(b"%d" % number)

    assert await repeated(sockets, publisher, 2) == [(2, b"2"), (3, b"3")]
    assert await repeated(sockets, publisher, 4) == []
    assert len(await repeated(sockets, publisher, 0)) == 4


async def test_only_the_latest_are_kept(sockets, publish):
    publisher = publish(buffer=3)
    for number in range(10):
        publisher.send(b"%d" % number)

    assert [seq for seq, _ in await repeated(sockets, publisher, 0)] == [7, 8, 9]


async def test_many_large_batches_arrive(sockets, publish):
    publisher = publish()
    for _ in range(900):
        publisher.send(b"x" * 10_000)

    assert len(await repeated(sockets, publisher, 0)) == 900


async def test_an_answer_may_be_left_early(sockets, publish):
    publisher = publish()
    for number in range(100):
        publisher.send(b"%d" % number)

    async with aclosing(replay(sockets, publisher.replay_endpoint, 0, PATIENCE_S)) as messages:
        async for _ in messages:
            break
    assert len(await repeated(sockets, publisher, 0)) == 100


async def test_nobody_answers(sockets, publish):
    publisher = publish()
    publisher.mute = True

    with pytest.raises(Silent, match=r"did not repeat.*within 0\.1 s"):
        await repeated(sockets, publisher, 0, 0.1)


async def test_nobody_is_there(sockets, publish):
    publisher = publish()
    publisher.close()

    with pytest.raises(Silent):
        await repeated(sockets, publisher, 0, 0.1)


async def test_no_address(sockets):
    with pytest.raises(Unreachable):
        async with aclosing(replay(sockets, "nowhere", 0, PATIENCE_S)) as messages:
            await anext(messages)
