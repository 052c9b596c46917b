import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from extproc.reservations import Reservation, Reservations
from extproc.share import Share
from extproc.state import keys
from extproc.state.store import Store, StoreCorrupt, Totals

A, B = "pod/default/a", "pod/default/b"
TOTALS, LEASES = keys.inflight_total("g"), keys.inflight_leases("g")


def to(reservations: Reservations, pod: str) -> Reservation:
    return reservations.reserve(
        pod=pod, address="10.0.0.1:8000", server="server/default/s", route="route/default/r"
    )


class Worker:
    """The counts of one instance and the loop that shares them."""

    def __init__(self, store: Store, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.reservations = Reservations(clock)
        self.share = Share(store, self.reservations, instance, clock)


@asynccontextmanager
async def sharing(*workers: Worker) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        loops = [tasks.create_task(worker.share.run()) for worker in workers]
        yield
        assert not any(loop.done() for loop in loops)
        for loop in loops:
            loop.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


async def totals(raw: Redis, expected: Mapping[str, int]) -> None:
    """Wait until the store holds these totals."""
    wanted = {pod.encode(): str(count).encode() for pod, count in expected.items()}
    async with asyncio.timeout(30):
        while await raw.hgetall(TOTALS) != wanted:
            await asyncio.sleep(0.002)


async def test_counts_reach_the_store_and_leave_it(open_store: Callable[[], Store], raw: Redis) -> None:
    worker = Worker(open_store(), "one")
    async with sharing(worker):
        made = [to(worker.reservations, A), to(worker.reservations, A), to(worker.reservations, B)]
        await totals(raw, {A: 2, B: 1})
        for reservation in made:
            worker.reservations.release(reservation.id)
        await totals(raw, {})
        assert await raw.keys("*inflight:of:*") == []


async def test_workers_learn_of_each_other(open_store: Callable[[], Store]) -> None:
    one, two = Worker(open_store(), "one"), Worker(open_store(), "two")
    async with sharing(one, two):
        made = [to(one.reservations, A) for _ in range(3)]
        to(two.reservations, A)
        to(two.reservations, B)
        for worker in (one, two):
            await until(lambda w=worker: (w.reservations.load(A), w.reservations.load(B)) == (4, 1))
        for reservation in made:
            one.reservations.release(reservation.id)
        await until(lambda: two.reservations.load(A) == 1)


async def test_a_worker_that_ends_takes_its_counts_along(open_store: Callable[[], Store], raw: Redis) -> None:
    staying, leaving = Worker(open_store(), "staying"), Worker(open_store(), "leaving")
    async with sharing(staying):
        async with sharing(leaving):
            to(leaving.reservations, A)
            await until(lambda: staying.reservations.load(A) == 1)
        assert await raw.zrange(LEASES, 0, -1) == [b"staying"]
        await until(lambda: staying.reservations.load(A) == 0)


async def test_an_idle_worker_keeps_its_lease(open_store: Callable[[], Store], raw: Redis) -> None:
    worker = Worker(open_store(), "one")
    async with sharing(worker), asyncio.timeout(30):
        while not (first := await raw.zscore(LEASES, "one")):
            await asyncio.sleep(0.002)
        while await raw.zscore(LEASES, "one") == first:
            await asyncio.sleep(0.01)


async def test_after_a_flush_everything_is_stated_again(open_store: Callable[[], Store], raw: Redis) -> None:
    one, two = Worker(open_store(), "one"), Worker(open_store(), "two")
    async with sharing(one, two):
        to(one.reservations, A)
        to(two.reservations, A)
        await totals(raw, {A: 2})
        await raw.flushall()
        await totals(raw, {A: 2})
        await raw.script_flush()
        to(one.reservations, A)
        await totals(raw, {A: 3})


async def test_a_crashed_worker_is_forgotten(open_store: Callable[[], Store], raw: Redis) -> None:
    worker = Worker(open_store(), "alive")
    await open_store().state_inflight("crashed", 50, {A: 7})
    async with sharing(worker):
        await until(lambda: worker.reservations.load(A) == 0)
        await totals(raw, {})


async def test_a_killed_store_is_outlived_and_told_again(own_valkey: object) -> None:
    store, observer = Store.connect(own_valkey.url, "g"), Store.connect(own_valkey.url, "g")
    worker = Worker(store, "one")

    async def seen(expected: dict[str, int]) -> None:
        async with asyncio.timeout(30):
            while (await observer.state_inflight("observer", 5000, {})).pods != expected:
                await asyncio.sleep(0.002)

    try:
        async with sharing(worker):
            first = to(worker.reservations, A)
            await seen({A: 1})
            await observer.close()
            own_valkey.kill()
            # Counting goes on without the store.
            to(worker.reservations, A)
            to(worker.reservations, B)
            worker.reservations.release(first.id)
            assert (worker.reservations.load(A), worker.reservations.load(B)) == (1, 1)
            own_valkey.start()
            await seen({A: 1, B: 1})
    finally:
        await observer.close()
        await store.close()


async def test_a_worker_ends_even_when_the_store_is_away(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    worker = Worker(store, "one")
    try:
        async with asyncio.timeout(30):
            async with sharing(worker):
                to(worker.reservations, A)
                own_valkey.kill()
    finally:
        await store.close()


class Answers:
    """A store that answers as it is told and remembers what was stated."""

    def __init__(self) -> None:
        self.stated: list[dict[str, int]] = []
        self.pods: dict[str, int] = {}
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def state_inflight(self, instance: str, lease_ms: int, counts: dict[str, int]) -> Totals:
        self.stated.append(counts)
        await self.gate.wait()
        if self.failing:
            raise StoreCorrupt("garbled")
        return Totals(True, self.pods)

    async def drop_instance(self, instance: str) -> None:
        await asyncio.Event().wait()


async def test_a_burst_is_stated_at_once_not_one_by_one() -> None:
    store = Answers()
    worker = Worker(store, "one")
    async with sharing(worker):
        await until(lambda: store.stated == [{}])
        for _ in range(500):
            to(worker.reservations, A)
        await until(lambda: {A: 500} in store.stated)

    assert store.stated[:2] == [{}, {A: 500}]


async def test_what_changes_while_a_statement_is_under_way_is_stated_next() -> None:
    store = Answers()
    worker = Worker(store, "one")
    store.gate.clear()
    async with sharing(worker):
        await until(lambda: store.stated == [{}])
        to(worker.reservations, A)
        store.gate.set()
        await until(lambda: store.stated[-1] == {A: 1})


async def test_totals_answer_the_statement_they_belong_to() -> None:
    store = Answers()
    worker = Worker(store, "one")
    to(worker.reservations, A)
    store.gate.clear()
    async with sharing(worker):
        await until(lambda: store.stated == [{A: 1}])
        to(worker.reservations, A)
        store.pods = {A: 5}
        store.gate.set()
        # Four of the others, and two of our own, one of which is not yet in the totals.
        await until(lambda: worker.reservations.load(A) == 6)
        store.gate.clear()


async def test_an_unreadable_answer_does_not_stop_it(caplog: pytest.LogCaptureFixture) -> None:
    store = Answers()
    store.failing = True
    worker = Worker(store, "one")
    async with sharing(worker):
        await until(lambda: len(store.stated) > 3)
        store.failing, store.pods = False, {A: 2}
        await until(lambda: worker.reservations.load(A) == 2)

    assert caplog.text.count("are not shared: garbled") == 1
    # This store never answers the farewell either: the loop ended all the same.
    assert "they run out within 5 s" in caplog.text


async def test_counts_of_others_fade_when_they_have_not_been_heard_for_a_lease() -> None:
    store = Answers()
    store.pods = {A: 9}
    now = 1000.0
    worker = Worker(store, "one", lambda: now)
    async with sharing(worker):
        await until(lambda: worker.reservations.load(A) == 9)
        store.failing = True
        asked = len(store.stated)
        await until(lambda: len(store.stated) > asked + 2)
        assert worker.reservations.load(A) == 9

        now += 5.1
        await until(lambda: worker.reservations.load(A) == 0)
