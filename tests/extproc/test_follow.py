import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from extproc.cache import frames, snapshots
from extproc.cache.frames import Namespace, Operation
from extproc.cache.holdings import Holdings
from extproc.follow import Follow
from extproc.reservations import Reservation, Reservations
from extproc.share import Share
from extproc.state import keys, live
from extproc.state.engines import Engines
from extproc.state.live import Engine, InFlight, Load
from extproc.state.store import Positions, Read, Store, Subject
from extproc.state.store.streams import START
from extproc.teach import Teach

A, B = "pod/ns/a", "pod/ns/b"
ONE, TWO, LATER = 11, 22, 33
BIG = 1_000_000
CHAIN = list(range(1000, 1040))


class Worker:
    """The replicas of one worker and the loops that keep them."""

    def __init__(self, store: Store, instance: str, settle_s: float = 0.2) -> None:
        self.store = store
        self.skew = 0.0
        self.holdings = Holdings()
        for life in (ONE, TWO):
            self.holdings.enroll(life, BIG)
        self.reservations = Reservations(self.clock)
        self.engines = Engines(self.clock)
        self.share = Share(store, self.reservations, instance, self.clock)
        self.teach = Teach(store, self.holdings, instance)
        self.follow = Follow(
            store, self.holdings, self.reservations, self.engines, instance, self.clock, settle_s
        )

    def clock(self) -> float:
        return time.monotonic() + self.skew

    def place(self, endpoint: str, life: int = ONE, chain: list[int] | None = None) -> Reservation:
        self.holdings.learn(life, chain or [])
        return self.reservations.reserve(
            endpoint=endpoint, address="10.0.0.1:8000", server="server/ns/s", route="route/ns/r"
        )

    def depth(self, life: int, chain: list[int] = CHAIN) -> int:
        return self.holdings.prefix_depths(chain, [life])[0]

    def kv_depth(self, life: int) -> int:
        return self.holdings.kv_depths(CHAIN, [life])[0]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for loop in (self.share.run(), self.teach.run(), self.follow.run()):
                tasks.create_task(loop)


@asynccontextmanager
async def working(*workers: Worker) -> AsyncIterator[None]:
    """Their loops run, and must not end."""
    async with asyncio.TaskGroup() as tasks:
        loops = [tasks.create_task(worker.run()) for worker in workers]
        async with asyncio.timeout(30):
            for worker in workers:
                await worker.follow.complete()
        yield
        assert not any(loop.done() for loop in loops)
        for loop in loops:
            loop.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
def new_worker(open_store: Callable[[], Store]) -> Callable[..., Worker]:
    return lambda instance, **settings: Worker(open_store(), instance, **settings)


def kv_added(life: int, hashes: list[int]) -> bytes:
    return frames.pack_all(frames.changes(life, Namespace.KV, Operation.ADD, hashes))


def kv_snapshot(hashes: list[int], position: str) -> bytes:
    packed = frames.packed(hashes)
    return snapshots.encode(snapshots.KvSnapshot(position, packed, packed, bytes(4 * len(hashes)), -1))


# What is told is known.


async def test_workers_learn_what_the_others_place(new_worker: Callable[..., Worker]) -> None:
    one, two = new_worker("one"), new_worker("two")
    async with working(one, two):
        made = one.place(A, ONE, CHAIN[:5])
        two.place(A, TWO, CHAIN[:7])
        for worker in (one, two):
            await until(lambda w=worker: w.reservations.load(A) == Load(2, 0))
            await until(lambda w=worker: (w.depth(ONE), w.depth(TWO)) == (5, 7))
        one.reservations.release(made.id)
        await until(lambda: two.reservations.load(A) == Load(1, 0))
        assert one.follow.connected
        assert (one.follow.gaps, one.follow.unreadable, one.follow.reloads) == (0, 0, 1)
        assert one.follow.stale_s() < 30
        assert one.follow.lag_s < 30


async def test_engines_are_heard_of(store: Store, new_worker: Callable[..., Worker]) -> None:
    worker = new_worker("one")
    begun: list[tuple[str, int | None, int]] = []
    worker.engines.watch(lambda *told: begun.append(told))
    engine = Engine(A, "10.0.0.1:8000", 0.5, started=7.0, running=3)
    async with working(worker):
        await store.streams.state([engine, InFlight("another", {A: Load(2, 9)})])
        await until(lambda: worker.engines.get(A) == engine)
        assert worker.reservations.load(A) == Load(2, 9)

    assert begun == [(A, None, engine.life)]


async def test_who_starts_knows_what_was_stated_lately(
    store: Store, raw: Redis, new_worker: Callable[..., Worker]
) -> None:
    now_ms = (await store.streams.ends()).now_ms
    stale = msg(InFlight("stale", {B: Load(5, 5)}))
    await raw.xadd(keys.live("g"), {"f": stale}, id=f"{now_ms - 8000}-0")
    await store.streams.state([InFlight("another", {A: Load(2, 9)}, whole=True)])
    worker = new_worker("one")
    async with working(worker):
        await until(lambda: worker.reservations.load(A) == Load(2, 9))
        assert worker.reservations.load(B) == Load(0, 0)


def msg(*statements: InFlight) -> bytes:
    return live.encode(statements)


async def test_a_worker_does_not_count_itself_twice(store: Store, new_worker: Callable[..., Worker]) -> None:
    worker = new_worker("one")
    async with working(worker):
        worker.place(A)
        await store.streams.state([InFlight("one", {A: Load(9, 9)}), InFlight("two", {B: Load(1, 0)})])
        await until(lambda: worker.reservations.load(B) == Load(1, 0))
        assert worker.reservations.load(A) == Load(1, 0)


async def test_a_worker_that_crashed_is_forgotten_by_the_clock_of_the_others(
    store: Store, new_worker: Callable[..., Worker]
) -> None:
    worker = new_worker("one")
    async with working(worker):
        await store.streams.state([InFlight("crashed", {A: Load(9, 9)})])
        await until(lambda: worker.reservations.load(A) == Load(9, 9))
        worker.skew += 1.0
        await asyncio.sleep(0.05)
        assert worker.reservations.load(A) == Load(9, 9)
        worker.skew += 5.0
        await until(lambda: worker.reservations.load(A) == Load(0, 0))


async def test_busy_streams_are_followed_too(store: Store, new_worker: Callable[..., Worker]) -> None:
    """So many entries that one read does not bring them all, and then for a while many in each second."""
    worker = new_worker("one")
    for number in range(300):
        await store.streams.state([InFlight("before", {B: Load(number + 1, 0)})])
    number = 0
    async with working(worker):
        deadline = time.monotonic() + 1.6
        await until(lambda: worker.reservations.load(B) == Load(300, 0))
        while time.monotonic() < deadline:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(20):
                    number += 1
                    tasks.create_task(store.streams.state([InFlight("another", {A: Load(number, 0)})]))
            await asyncio.sleep(0.02)
        await store.streams.state([InFlight("another", {A: Load(1, 1)})])
        await until(lambda: worker.reservations.load(A) == Load(1, 1))


# Starting, and lives that come later.


async def test_a_worker_that_starts_again_knows_everything_at_once(
    store: Store, new_worker: Callable[..., Worker]
) -> None:
    first = new_worker("first")
    async with working(first):
        first.place(A, ONE, CHAIN[:20])
        await until(lambda: first.depth(ONE) == 20)
        position = await store.streams.publish("collector", 1, kv_added(TWO, CHAIN[:1]))
        await until(lambda: first.kv_depth(TWO) == 1)
        snapshot = first.holdings.snapshot(ONE, position)
    await store.snapshots.write(Subject(Namespace.PREFIX, ONE), snapshots.encode(snapshot))
    await store.snapshots.write(Subject(Namespace.KV, TWO), kv_snapshot(CHAIN[:9], position))
    await store.streams.publish("collector", 2, kv_added(TWO, CHAIN[9:30]))

    again = new_worker("again")
    async with working(again):
        assert (again.depth(ONE), again.depth(TWO)) == (20, 0)
        assert (again.kv_depth(ONE), again.kv_depth(TWO)) == (0, 30)


async def test_a_life_that_begins_later_is_recovered_too(
    store: Store, new_worker: Callable[..., Worker]
) -> None:
    worker = new_worker("one")
    async with working(worker):
        await store.snapshots.write(Subject(Namespace.KV, LATER), kv_snapshot(CHAIN[:9], START))
        await store.streams.publish("collector", 1, kv_added(LATER, CHAIN[9:12]))
        worker.holdings.enroll(LATER, BIG)
        await until(lambda: worker.kv_depth(LATER) == 12)
        # The same life once more, as when its ModelServer was gone for a while.
        worker.holdings.retire(LATER)
        await asyncio.sleep(0.6)
        worker.holdings.enroll(LATER, BIG)
        await until(lambda: worker.kv_depth(LATER) == 12)
    assert worker.follow.reloads == 1


async def test_requests_in_flight_are_followed_during_a_recovery(
    store: Store, new_worker: Callable[..., Worker]
) -> None:
    for number in range(400):
        await store.streams.publish("collector", number + 1, kv_added(LATER, CHAIN))
    worker = new_worker("one")
    async with working(worker):
        read = worker.store.streams.read
        # The reads between recoveries bring nothing.
        worker.store.streams.read = _nothing_new
        await asyncio.sleep(0.6)
        await store.streams.state([InFlight("another", {A: Load(1, 1)})])
        worker.holdings.enroll(LATER, BIG)
        await until(lambda: worker.reservations.load(A) == Load(1, 1))
        worker.store.streams.read = read
        await until(lambda: worker.kv_depth(LATER) == len(CHAIN))


async def _nothing_new(positions: Positions, block_ms: int) -> Read:
    await asyncio.sleep(0.01)
    return Read(positions, [], [], 0, 0, full=False)


# What goes wrong.


async def test_what_was_missed_is_recovered_from_a_later_snapshot(
    store: Store, new_worker: Callable[..., Worker]
) -> None:
    worker = new_worker("one", settle_s=0.3)
    async with working(worker):
        await store.streams.publish("collector", 1, kv_added(ONE, CHAIN[:2]))
        await until(lambda: worker.kv_depth(ONE) == 2)
        worker.place(A, TWO, CHAIN[:3])
        await until(lambda: worker.depth(TWO) == 3)
        # 2 was lost.
        position = await store.streams.publish("collector", 3, kv_added(ONE, CHAIN[5:8]))
        await store.snapshots.write(Subject(Namespace.KV, ONE), kv_snapshot(CHAIN[:8], position))
        await until(lambda: worker.follow.reloads == 2)
        assert worker.follow.gaps == 1
        assert (worker.kv_depth(ONE), worker.depth(TWO)) == (8, 3)

        # Our own changes are not lost by a snapshot that does not have them.
        worker.place(A, TWO, CHAIN[:6])
        await until(lambda: worker.depth(TWO) == 6)
        assert worker.follow.gaps == 1


async def test_a_recovery_does_not_undo_what_we_have_not_published_yet(
    store: Store, new_worker: Callable[..., Worker]
) -> None:
    worker = new_worker("one", settle_s=0.0)
    gate, publish = asyncio.Event(), worker.store.streams.publish

    async def held_back(*entry: object) -> str:
        await gate.wait()
        return await publish(*entry)

    worker.store.streams.publish = held_back
    other = Holdings()
    other.enroll(ONE, BIG)
    async with working(worker):
        worker.place(A, ONE, CHAIN[:6])
        await until(lambda: worker.depth(ONE) == 6)
        raw = snapshots.encode(other.snapshot(ONE, (await store.streams.ends()).positions.cache))
        await store.snapshots.write(Subject(Namespace.PREFIX, ONE), raw)
        for number in (1, 3):
            await store.streams.publish("collector", number, kv_added(TWO, CHAIN))
        await until(lambda: worker.depth(ONE) == 0)
        gate.set()
        await until(lambda: worker.depth(ONE) == 6)


async def test_an_entry_that_comes_twice_counts_once(store: Store, new_worker: Callable[..., Worker]) -> None:
    worker = new_worker("one")
    async with working(worker):
        await store.streams.publish("collector", 1, kv_added(ONE, CHAIN[:2]))
        await store.streams.publish("collector", 2, frames.clear(ONE, Namespace.KV).pack())
        await store.streams.publish("collector", 1, kv_added(ONE, CHAIN[:2]))
        await store.streams.publish("collector", 3, kv_added(TWO, CHAIN[:2]))
        await until(lambda: worker.kv_depth(TWO) == 2)
        assert worker.kv_depth(ONE) == 0
        assert worker.follow.gaps == 0


async def test_garbage_is_passed_over(store: Store, raw: Redis, new_worker: Callable[..., Worker]) -> None:
    worker = new_worker("one")
    async with working(worker):
        await raw.xadd(keys.live("g"), {"f": b"\xc1"})
        await raw.xadd(keys.cache("g"), {"x": b"\xc1"})
        await store.streams.publish("collector", 1, b"no frames")
        await store.streams.publish("collector", 2, kv_added(ONE, CHAIN))
        await until(lambda: worker.kv_depth(ONE) == len(CHAIN))
        assert (worker.follow.unreadable, worker.follow.gaps) == (3, 0)


async def test_a_flush_changes_nothing_that_is_known(raw: Redis, new_worker: Callable[..., Worker]) -> None:
    one, two = new_worker("one"), new_worker("two")
    async with working(one, two):
        one.place(A, ONE, CHAIN[:5])
        await until(lambda: two.depth(ONE) == 5 and two.reservations.load(A) == Load(1, 0))
        await raw.flushall()
        await raw.script_flush()
        one.place(A, ONE, CHAIN[:9])
        await until(lambda: two.depth(ONE) == 9 and two.reservations.load(A) == Load(2, 0))
        assert one.depth(ONE) == 9


async def test_a_store_whose_clock_was_set_back_is_followed(
    store: Store, raw: Redis, new_worker: Callable[..., Worker]
) -> None:
    worker = new_worker("one")
    ahead_ms = (await store.streams.ends()).now_ms + 3_600_000
    await raw.xadd(keys.cache("g"), {"p": "c", "s": "1", "f": kv_added(ONE, CHAIN[:1])}, id=f"{ahead_ms}-0")
    await raw.xadd(keys.live("g"), {"f": msg(InFlight("x", {}))}, id=f"{ahead_ms}-0")
    async with working(worker):
        await raw.delete(keys.cache("g"), keys.live("g"))
        await store.streams.publish("c", 2, kv_added(ONE, CHAIN[:5]))
        await store.streams.state([InFlight("another", {A: Load(1, 1)})])
        await until(lambda: worker.kv_depth(ONE) == 5)
        await until(lambda: worker.reservations.load(A) == Load(1, 1))


async def test_a_killed_store_is_outlived(own_valkey: object, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kvoy.follow")
    stores = [Store.connect(own_valkey.url, "g") for _ in range(2)]
    one, two = Worker(stores[0], "one"), Worker(stores[1], "two")
    try:
        async with working(one, two):
            one.place(A, ONE, CHAIN[:5])
            await until(lambda: two.depth(ONE) == 5)
            own_valkey.kill()
            await until(lambda: not two.follow.connected)
            one.place(A, ONE, CHAIN[:9])
            await until(lambda: one.depth(ONE) == 9)
            assert two.depth(ONE) == 5
            two.skew += 6.0
            await until(lambda: two.reservations.load(A) == Load(0, 0))

            own_valkey.start()
            await until(lambda: two.depth(ONE) == 9 and two.reservations.load(A) == Load(2, 0))
            assert two.follow.connected
            # Who sees the store empty takes over what the collectors know; who comes later misses nothing.
            assert max(one.follow.gaps, two.follow.gaps) <= 1
    finally:
        for store in stores:
            await store.close()
    assert caplog.text.count("the streams are not followed") == 2
    assert caplog.text.count("following the streams again") == 2


async def test_after_a_partition_everything_converges(own_valkey: object) -> None:
    stores = [Store.connect(own_valkey.url, "g") for _ in range(2)]
    one, two = Worker(stores[0], "one"), Worker(stores[1], "two")
    try:
        async with working(one, two):
            os.kill(own_valkey.pid, signal.SIGSTOP)
            made = [worker.place(A, ONE, CHAIN[: 4 + n]) for n, worker in enumerate((one, two))]
            await until(lambda: not (one.follow.connected or two.follow.connected))
            one.reservations.release(made[0].id)
            # As if it had taken longer than the streams retain changes.
            two.skew += 100.0
            os.kill(own_valkey.pid, signal.SIGCONT)
            for worker in (one, two):
                await until(lambda w=worker: w.reservations.load(A) == Load(1, 0))
                await until(lambda w=worker: w.depth(ONE) == 5)
            await until(lambda: two.follow.reloads == 2)
            assert (two.depth(ONE), one.follow.gaps, two.follow.gaps) == (5, 0, 1)
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
        for store in stores:
            await store.close()


# Any fate of the workers.

moves = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2]),
        st.sampled_from(["place", "place", "release", "crash", "leave", "flush"]),
        st.sampled_from([A, B]),
        st.integers(1, len(CHAIN)),
    ),
    max_size=25,
)


@settings(max_examples=8)
@given(moves)
def test_whatever_happens_the_loads_are_those_of_the_living(
    valkey: object, moves: list[tuple[int, str, str, int]]
) -> None:
    asyncio.run(_walk(valkey.url, moves))


class Life:
    """One life of a worker, which may end without a farewell."""

    def __init__(self, url: str, name: str) -> None:
        self.store = Store.connect(url, "g")
        self.worker = Worker(self.store, name)
        self.held: list[Reservation] = []
        self.over = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            loop = tasks.create_task(self.worker.run())
            await self.over.wait()
            loop.cancel()
        await self.store.close()

    def crash(self) -> None:
        self.store.streams.state = _lost
        self.over.set()

    def loads(self) -> list[int]:
        return [load.requests for load in self.worker.reservations.loads([A, B])]


async def _lost(_statements: object) -> None:
    """What a crashed worker would have said."""


async def _walk(url: str, moves: list[tuple[int, str, str, int]]) -> None:
    raw = Redis.from_url(url)
    await raw.flushall()
    names = count()
    async with asyncio.TaskGroup() as tasks:

        def begin() -> Life:
            life = Life(url, f"worker-{next(names)}")
            tasks.create_task(life.run())
            return life

        living = [begin() for _ in range(3)]
        for at, move, endpoint, depth in moves:
            life = living[at]
            match move:
                case "place":
                    life.held.append(life.worker.place(endpoint, ONE, CHAIN[:depth]))
                case "release" if life.held:
                    life.worker.reservations.release(life.held.pop().id)
                case "crash":
                    life.crash()
                    living[at] = begin()
                case "leave":
                    life.over.set()
                    living[at] = begin()
                case "flush":
                    await asyncio.sleep(0.02)
                    await raw.flushall()
            await asyncio.sleep(0)
        await _settle(living)
    await raw.aclose()


async def _settle(living: list[Life]) -> None:
    for life in living:
        await life.worker.follow.complete()
        # The crashed are silent for long enough.
        life.worker.skew += 6.0
    expected = [sum(r.endpoint == e for life in living for r in life.held) for e in (A, B)]
    for life in living:
        await until(lambda life=life: life.loads() == expected)
    for life in living:
        life.over.set()
