import time

import pytest

from extproc.collect.kv.subscribe import Message, Subscription


@pytest.fixture
async def publisher(publish):
    return publish()


@pytest.fixture
async def subscription(sockets, publisher):
    """One that has reached the publisher."""
    opened = Subscription(sockets, publisher.endpoint)
    deadline = time.monotonic() + 20
    while not await opened.receive(0.02):
        assert time.monotonic() < deadline
        publisher.send_raw(b"", (99).to_bytes(8, "big"), b"hello")
    publisher.send_raw(b"", (99).to_bytes(8, "big"), b"last")
    while b"last" not in [message.payload for message in await opened.receive(0.2)]:
        assert time.monotonic() < deadline
    yield opened
    opened.close()


async def received(subscription, count):
    messages = []
    deadline = time.monotonic() + 20
    while len(messages) < count:
        assert time.monotonic() < deadline
        messages += await subscription.receive(1.0)
    return messages


async def test_batches_are_numbered(subscription, publisher):
    publisher.send(b"first")
    publisher.send(b"second")

    assert await received(subscription, 2) == [Message(0, b"first"), Message(1, b"second")]


async def test_messages_of_another_form_are_skipped(subscription, publisher):
    for strange in ([b"x"], [b"topic", b"seq", b"payload"], [b"", b"", b"", b""], [b"topic", b"12345678"]):
        publisher.send_raw(*strange)
    publisher.send(b"first")

    assert await received(subscription, 1) == [Message(0, b"first")]


async def test_a_flood_comes_in_pieces(subscription, publisher):
    for _ in range(1000):
        publisher.send(b"x" * 100)

    sizes, total = [], []
    deadline = time.monotonic() + 20
    while len(total) < 1000:
        assert time.monotonic() < deadline
        messages = await subscription.receive(1.0)
        sizes.append(len(messages))
        total += [message.seq for message in messages]
    assert total == list(range(1000))
    assert max(sizes) <= 64


async def test_another_connection_shows(subscription, publisher, publish):
    assert subscription.connected_anew()
    assert not subscription.connected_anew()
    publisher.close()
    again = publish(**publisher.ports)
    deadline = time.monotonic() + 20
    while b"again" not in [message.payload for message in await subscription.receive(0.02)]:
        assert time.monotonic() < deadline
        again.send(b"again")
    assert subscription.connected_anew()


async def test_silence_gives_nothing(subscription):
    assert await subscription.receive(0.01) == []
