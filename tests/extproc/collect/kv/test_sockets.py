import asyncio
import time

import pytest

from extproc.collect.kv.sockets import Unreachable


@pytest.fixture
def subscribe(sockets):
    """Subscribes to a publisher, and closes."""
    inboxes = []

    def start(publisher):
        inboxes.append(sockets.subscribe(publisher.endpoint, 100))
        return inboxes[-1]

    yield start
    for inbox in inboxes:
        inbox.close()


async def took(inbox):
    deadline = time.monotonic() + 20
    while (parts := inbox.take()) is None:
        assert time.monotonic() < deadline
        await inbox.wait(1.0)
    return parts


async def hello(publisher, inbox):
    """Publish until the subscription has reached the publisher."""
    deadline = time.monotonic() + 20
    while inbox.take() is None:
        assert time.monotonic() < deadline
        publisher.send_raw(b"hello")
        await inbox.wait(0.02)
    while inbox.take() is not None:
        pass


async def test_messages_arrive_in_order_and_without_polling(subscribe, publish):
    publisher = publish()
    inbox = subscribe(publisher)
    await hello(publisher, inbox)

    for number in range(5):
        publisher.send_raw(b"%d" % number, b"x")
    assert [await took(inbox) for _ in range(5)] == [[b"%d" % number, b"x"] for number in range(5)]
    assert inbox.take() is None


async def test_waiting_ends_when_something_arrives_and_the_loop_goes_on_meanwhile(subscribe, publish):
    publisher = publish()
    inbox = subscribe(publisher)
    await hello(publisher, inbox)

    async def later():
        await asyncio.sleep(0.05)
        publisher.send_raw(b"here")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(later())
        assert await took(inbox) == [b"here"]


async def test_nothing_arrives(subscribe, publish):
    inbox = subscribe(publish())

    deadline = time.monotonic() + 20
    while await inbox.wait(0.05):  # the connection itself makes the descriptor readable
        assert inbox.take() is None
        assert time.monotonic() < deadline


async def test_a_wait_may_be_cancelled_and_the_socket_used_again(subscribe, publish):
    publisher = publish()
    inbox = subscribe(publisher)
    await hello(publisher, inbox)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(took(inbox))
        await asyncio.sleep(0.05)
        waiting.cancel()
    publisher.send_raw(b"here")
    assert await took(inbox) == [b"here"]


async def test_a_peer_may_appear_later_and_again(subscribe, publish):
    first = publish()
    inbox = subscribe(first)
    await hello(first, inbox)
    assert inbox.connected_anew()
    assert not inbox.connected_anew()
    first.close()
    assert not inbox.connected_anew()

    await hello(publish(**first.ports), inbox)
    assert inbox.connected_anew()
    assert not inbox.connected_anew()


@pytest.mark.parametrize("address", ["", "tcp://", "tcp://127.0.0.1:x", "nothing://127.0.0.1:1", "tcp://*:1"])
async def test_what_is_no_address(sockets, address):
    with pytest.raises(Unreachable):
        sockets.subscribe(address, 100)
    with pytest.raises(Unreachable):
        sockets.ask(address, 100)
