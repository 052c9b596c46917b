import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from extproc.reservations import Reservation, Reservations
from extproc.share import Share
from extproc.state.live import InFlight, Load
from extproc.state.store import Store, StoreUnavailable
from extproc.state.store.streams import START

A, B = "pod/default/a", "pod/default/b"


def to(reservations: Reservations, endpoint: str, tokens: int = 0, prefill_s: float = 0.0) -> Reservation:
    return reservations.reserve(
        endpoint=endpoint,
        address="10.0.0.1:8000",
        server="server/default/s",
        route="route/default/r",
        tokens=tokens,
        prefill_s=prefill_s,
    )


class Worker:
    """The reservations of one instance and the loop that shares them."""

    def __init__(self, store: object, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.reservations = Reservations(clock)
        self.share = Share(store, self.reservations, instance, clock)


class Reader:
    """Another worker, which reads everything from the beginning of the stream."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._position = START
        self.reservations = Reservations(time.monotonic)
        self.statements: list[InFlight] = []

    async def read(self) -> None:
        statements, self._position = await self._store.streams.statements(self._position)
        for statement in statements:
            self.statements.append(statement)
            self.reservations.absorb(statement)

    async def sees(self, expected: Mapping[str, Load]) -> None:
        async with asyncio.timeout(30):
            while [self.reservations.load(key) for key in (A, B)] != [
                expected.get(key, Load(0, 0)) for key in (A, B)
            ]:
                await self.read()
                await asyncio.sleep(0.002)


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


@pytest.fixture
def reader(open_store: Callable[[], Store]) -> Reader:
    return Reader(open_store())


async def test_loads_reach_the_others_and_leave_them(open_store: Callable[[], Store], reader: Reader) -> None:
    worker = Worker(open_store(), "one")
    async with sharing(worker):
        made = [to(worker.reservations, A, 70, 60.0), to(worker.reservations, A), to(worker.reservations, B)]
        await reader.sees({A: Load(2, 70), B: Load(1, 0)})
        for reservation in made:
            worker.reservations.release(reservation.id)
        await reader.sees({})


async def test_workers_add_up(open_store: Callable[[], Store], reader: Reader) -> None:
    one, two = Worker(open_store(), "one"), Worker(open_store(), "two")
    async with sharing(one, two):
        made = [to(one.reservations, A) for _ in range(3)]
        to(two.reservations, A)
        to(two.reservations, B)
        await reader.sees({A: Load(4, 0), B: Load(1, 0)})
        for reservation in made:
            one.reservations.release(reservation.id)
        await reader.sees({A: Load(1, 0), B: Load(1, 0)})


async def test_a_worker_that_ends_takes_its_loads_along(
    open_store: Callable[[], Store], reader: Reader
) -> None:
    async with sharing(leaving := Worker(open_store(), "leaving")):
        to(leaving.reservations, A)
        await reader.sees({A: Load(1, 0)})

    await reader.sees({})
    assert reader.statements[-1] == InFlight("leaving", {}, whole=True)


async def test_computed_tokens_are_told_though_nothing_else_happens(
    open_store: Callable[[], Store], reader: Reader
) -> None:
    worker = Worker(open_store(), "one")
    async with sharing(worker):
        to(worker.reservations, A, tokens=70, prefill_s=0.2)
        await reader.sees({A: Load(1, 70)})
        await reader.sees({A: Load(1, 0)})
    assert any(not s.whole and s.loads.get(A) == Load(1, 0) for s in reader.statements)


async def test_everything_is_stated_again_and_again(
    open_store: Callable[[], Store], reader: Reader, raw: Redis
) -> None:
    worker = Worker(open_store(), "one")
    async with sharing(worker):
        to(worker.reservations, A)
        await reader.sees({A: Load(1, 0)})
        await raw.flushall()
        await raw.script_flush()
        late = Reader(reader._store)
        await late.sees({A: Load(1, 0)})

    assert late.statements[0].whole


async def test_a_killed_store_is_outlived_and_told_again(own_valkey: object) -> None:
    store, other = Store.connect(own_valkey.url, "g"), Store.connect(own_valkey.url, "g")
    worker = Worker(store, "one")
    try:
        async with sharing(worker):
            first = to(worker.reservations, A)
            await Reader(other).sees({A: Load(1, 0)})
            own_valkey.kill()
            # Counting goes on without the store.
            to(worker.reservations, A)
            to(worker.reservations, B)
            worker.reservations.release(first.id)
            assert worker.reservations.loads([A, B]) == [(1, 0), (1, 0)]
            await asyncio.sleep(0.05)
            own_valkey.start()
            await Reader(other).sees({A: Load(1, 0), B: Load(1, 0)})
    finally:
        await other.close()
        await store.close()


async def test_a_worker_ends_even_when_the_store_is_away(
    own_valkey: object, caplog: pytest.LogCaptureFixture
) -> None:
    store, other = Store.connect(own_valkey.url, "g"), Store.connect(own_valkey.url, "g")
    worker = Worker(store, "one")
    try:
        async with asyncio.timeout(30):
            async with sharing(worker):
                to(worker.reservations, A)
                await Reader(other).sees({A: Load(1, 0)})
                own_valkey.kill()
    finally:
        await other.close()
        await store.close()
    assert "the other workers notice within 5 s" in caplog.text


class Stated:
    """A store that does as it is told and remembers what was stated."""

    def __init__(self) -> None:
        self.streams = self
        self.statements: list[InFlight] = []
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def state(self, statements: list[InFlight]) -> None:
        self.statements += statements
        await self.gate.wait()
        if self.failing:
            raise StoreUnavailable("away")


NOTHING_YET = [InFlight("one", {}, whole=True)]


async def test_the_first_change_is_stated_at_once_and_a_burst_as_one() -> None:
    store = Stated()
    worker = Worker(store, "one")
    async with sharing(worker):
        await until(lambda: store.statements == NOTHING_YET)
        for _ in range(500):
            to(worker.reservations, A)
        await until(lambda: len(store.statements) == 2)

    assert store.statements[1] == InFlight("one", {A: Load(500, 0)})


async def test_only_what_changed_is_stated_between_whole_statements() -> None:
    now = 100.0
    store = Stated()
    worker = Worker(store, "one", lambda: now)
    async with sharing(worker):
        await until(lambda: store.statements == NOTHING_YET)
        to(worker.reservations, A)
        await until(lambda: len(store.statements) == 2)
        released = to(worker.reservations, B)
        worker.reservations.release(released.id)
        await until(lambda: len(store.statements) == 3)
        now += 1.0
        to(worker.reservations, A)
        await until(lambda: len(store.statements) == 4)

    assert store.statements[1:4] == [
        InFlight("one", {A: Load(1, 0)}),
        InFlight("one", {B: Load(0, 0)}),
        InFlight("one", {A: Load(2, 0)}, whole=True),
    ]


async def test_what_changes_while_a_statement_is_under_way_is_stated_next() -> None:
    store = Stated()
    worker = Worker(store, "one")
    store.gate.clear()
    async with sharing(worker):
        await until(lambda: store.statements == NOTHING_YET)
        to(worker.reservations, A)
        store.gate.set()
        await until(lambda: store.statements[-1].loads == {A: Load(1, 0)})


async def test_after_a_failure_everything_is_stated(caplog: pytest.LogCaptureFixture) -> None:
    store = Stated()
    worker = Worker(store, "one")
    async with sharing(worker):
        await until(lambda: store.statements == NOTHING_YET)
        store.failing = True
        to(worker.reservations, A)
        await until(lambda: len(store.statements) > 4)
        store.failing = False
        tried = len(store.statements)
        await until(lambda: len(store.statements) > tried)
        assert store.statements[tried] == InFlight("one", {A: Load(1, 0)}, whole=True)
        store.failing = True

    assert caplog.text.count("are not shared: away") == 1
