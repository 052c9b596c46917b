import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from extproc.state import keys
from extproc.state.fold import Records, fold
from extproc.state.records import Delete, Publication, Put, Record, StringMatch, encode
from extproc.state.replica import Replica
from extproc.state.snapshot import EMPTY, compile_snapshot
from extproc.state.store import Head, Store, StoreCorrupt, Stored, StoreUnavailable
from extproc.testing import a_pod, a_route, a_rule, a_server

ROUTE, SERVER, POD, OTHER = (
    a_route("r", a_rule("s"), model="m"),
    a_server("s"),
    a_pod("p", "s"),
    a_pod("q", "s"),
)
NOT_RE2 = a_route("r", a_rule("s", uri=StringMatch(regex="(")))


def whole(epoch: str, generation: int, *records: Record) -> Publication:
    return Publication(epoch, generation, tuple(Put(r) for r in records), whole=True)


def step(epoch: str, generation: int, *changes: Put | Delete) -> Publication:
    return Publication(epoch, generation, changes)


@asynccontextmanager
async def following(*replicas: Replica) -> AsyncIterator[None]:
    """Their loops run, and must not end."""
    async with asyncio.TaskGroup() as tasks:
        loops = [tasks.create_task(replica.run()) for replica in replicas]
        yield
        assert not any(loop.done() for loop in loops)
        for loop in loops:
            loop.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def generation(replica: Replica, epoch: str, number: int) -> None:
    await until(lambda: (replica.snapshot.epoch, replica.snapshot.generation) == (epoch, number))


@pytest.fixture
def replica(open_store: Callable[[], Store]) -> Replica:
    return Replica(open_store(), time.monotonic)


async def test_before_the_first_configuration_it_is_not_ready(replica: Replica) -> None:
    assert not replica.ready
    assert not replica.connected
    async with following(replica):
        await until(lambda: replica.connected)
        assert not replica.ready
        assert replica.snapshot is EMPTY


async def test_it_loads_what_was_published_before_and_follows_what_comes(
    store: Store, replica: Replica
) -> None:
    await store.configuration.publish(whole("e", 1, ROUTE, SERVER))
    await store.configuration.publish(step("e", 2, Put(POD)))
    async with following(replica):
        await generation(replica, "e", 2)
        assert replica.ready
        assert replica.snapshot == compile_snapshot("e", 2, [ROUTE, SERVER, POD])

        await store.configuration.publish(step("e", 3, Put(OTHER), Delete(POD.key)))
        await generation(replica, "e", 3)
        assert replica.snapshot == compile_snapshot("e", 3, [ROUTE, SERVER, OTHER])
    assert (replica.reloads, replica.gaps) == (1, 0)


async def test_it_becomes_ready_with_the_first_publication(store: Store, replica: Replica) -> None:
    async with following(replica):
        await until(lambda: replica.connected)
        await store.configuration.publish(whole("e", 1))
        await generation(replica, "e", 1)
        # A configuration without any record is complete, too.
        assert replica.ready


async def test_a_snapshot_in_use_never_changes(store: Store, replica: Replica) -> None:
    await store.configuration.publish(whole("e", 1, SERVER, POD))
    async with following(replica):
        await generation(replica, "e", 1)
        in_use = replica.snapshot
        await store.configuration.publish(step("e", 2, Delete(POD.key)))
        await generation(replica, "e", 2)

    assert in_use == compile_snapshot("e", 1, [SERVER, POD])


async def test_a_new_epoch_is_taken_over(store: Store, replica: Replica) -> None:
    await store.configuration.publish(whole("e", 1, ROUTE, SERVER, POD))
    async with following(replica):
        await generation(replica, "e", 1)
        await store.configuration.publish(whole("f", 2, SERVER))
        await generation(replica, "f", 2)

    assert replica.snapshot == compile_snapshot("f", 2, [SERVER])


async def test_after_a_flush_the_old_configuration_serves_until_the_new_is_complete(
    store: Store, raw: Redis, replica: Replica
) -> None:
    await store.configuration.publish(whole("e", 9, ROUTE, SERVER, POD))
    async with following(replica):
        await generation(replica, "e", 9)
        old = replica.snapshot
        await raw.flushall()
        # Half a configuration, as a writer without transactions would leave it.
        await raw.hset(keys.config("g"), "epoch", "half")
        contacted = replica.stale_s
        await until(lambda: contacted() > 0.3)
        await until(lambda: contacted() < 0.3)
        assert replica.snapshot is old
        assert replica.connected

        await store.configuration.publish(whole("f", 1, SERVER))
        await generation(replica, "f", 1)
        assert replica.snapshot == compile_snapshot("f", 1, [SERVER])
        await store.configuration.publish(step("f", 2, Put(POD)))
        await generation(replica, "f", 2)


async def test_forgotten_scripts_do_not_stop_it(store: Store, raw: Redis, replica: Replica) -> None:
    await store.configuration.publish(whole("e", 1, SERVER))
    async with following(replica):
        await generation(replica, "e", 1)
        await raw.script_flush()
        await store.configuration.publish(whole("f", 2, POD))
        await generation(replica, "f", 2)


async def test_a_killed_store_is_outlived_and_found_again(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    replica = Replica(store, time.monotonic)
    try:
        await store.configuration.publish(whole("e", 3, ROUTE, SERVER, POD))
        async with following(replica):
            await generation(replica, "e", 3)
            serving = replica.snapshot
            own_valkey.kill()
            await until(lambda: not replica.connected)
            assert replica.snapshot is serving
            assert replica.ready
            await until(lambda: replica.stale_s() > 0.5)

            own_valkey.start()
            await until(lambda: replica.connected)
            assert replica.snapshot is serving
            assert replica.stale_s() < 30

            await store.configuration.publish(whole("f", 1, SERVER))
            await generation(replica, "f", 1)
            await store.configuration.publish(step("f", 2, Put(POD)))
            await generation(replica, "f", 2)
            assert replica.snapshot == compile_snapshot("f", 2, [SERVER, POD])
    finally:
        await store.close()


async def test_a_store_that_comes_later_is_found(own_valkey: object) -> None:
    own_valkey.kill()
    store = Store.connect(own_valkey.url, "g")
    replica = Replica(store, time.monotonic)
    try:
        async with following(replica):
            await until(lambda: replica.stale_s() > 0.05)
            assert not replica.connected
            own_valkey.start()
            await store.configuration.publish(whole("e", 1, SERVER))
            await generation(replica, "e", 1)
    finally:
        await store.close()


async def test_a_log_trimmed_under_a_reader_leads_to_a_load(
    store: Store, raw: Redis, replica: Replica
) -> None:
    await store.configuration.publish(whole("e", 1, SERVER))
    async with following(replica):
        await generation(replica, "e", 1)
        await _put_past_the_log(raw, 2, POD)
        await store.configuration.publish(step("e", 3, Put(OTHER)))
        await generation(replica, "e", 3)

    assert replica.snapshot == compile_snapshot("e", 3, [SERVER, POD, OTHER])
    assert (replica.gaps, replica.reloads) == (1, 2)


async def test_what_the_log_never_told_is_found(store: Store, raw: Redis, replica: Replica) -> None:
    await store.configuration.publish(whole("e", 1, SERVER))
    async with following(replica):
        await generation(replica, "e", 1)
        await _put_past_the_log(raw, 2, POD)
        await generation(replica, "e", 2)

    assert replica.snapshot == compile_snapshot("e", 2, [SERVER, POD])


async def _put_past_the_log(raw: Redis, number: int, record: Record) -> None:
    """What a reader finds when the entry of a publication was trimmed before it was read."""
    await raw.hset(keys.config("g"), mapping={"generation": number, record.key: encode(record)})


async def test_an_unreadable_entry_does_not_stop_it(store: Store, raw: Redis, replica: Replica) -> None:
    await store.configuration.publish(whole("e", 1, SERVER))
    async with following(replica):
        await generation(replica, "e", 1)
        await raw.xadd(keys.log("g"), {"p": b"\xc1 nonsense"})
        await store.configuration.publish(step("e", 2, Put(POD)))
        await generation(replica, "e", 2)

    assert replica.snapshot == compile_snapshot("e", 2, [SERVER, POD])


@pytest.mark.parametrize("bad", [b"\xc1 nonsense", "regex"])
async def test_a_configuration_that_can_not_be_used_leaves_the_last_one_in_force(
    store: Store, raw: Redis, replica: Replica, bad: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    await store.configuration.publish(whole("e", 1, SERVER, POD))
    async with following(replica):
        await generation(replica, "e", 1)
        serving = replica.snapshot
        if bad == "regex":
            await store.configuration.publish(step("e", 2, Put(NOT_RE2)))
        else:
            await raw.hset(keys.config("g"), "route/default/r", bad)
            await raw.hincrby(keys.config("g"), "generation", 1)
        await until(lambda: "still serving generation 1" in caplog.text)
        assert replica.snapshot is serving

        await store.configuration.publish(step("e", 3, Put(ROUTE)))
        await generation(replica, "e", 3)
        assert replica.snapshot == compile_snapshot("e", 3, [ROUTE, SERVER, POD])
    assert caplog.text.count("still serving") == 1


async def test_two_replicas_come_to_the_same(open_store: Callable[[], Store]) -> None:
    writer = open_store()
    replicas = [Replica(open_store(), time.monotonic) for _ in range(2)]
    async with following(*replicas):
        await writer.configuration.publish(whole("e", 1, ROUTE, SERVER))
        for number in range(2, 60):
            pod = a_pod(f"p{number % 7}", "s", ip=f"10.0.0.{number}")
            await writer.configuration.publish(step("e", number, Put(pod) if number % 3 else Delete(pod.key)))
        for replica in replicas:
            await generation(replica, "e", 59)

    stored = await writer.configuration.load()
    assert stored is not None
    expected = compile_snapshot("e", 59, stored.records.values())
    assert [replica.snapshot for replica in replicas] == [expected, expected]


async def test_age_is_counted_from_the_start_and_from_the_last_answer(
    open_store: Callable[[], Store],
) -> None:
    now = 100.0
    replica = Replica(open_store(), lambda: now)
    now = 107.0
    assert replica.stale_s() == 7.0
    async with following(replica):
        await until(lambda: replica.connected)
        assert replica.stale_s() == 0.0


# Any fate of the log, at the level of values.


class Fates:
    """A store whose log repeats and loses entries, and which fails in between, as `fates` say.

    Each call of `tail` or `load` uses up one fate; afterwards everything is well. Time passes with every
    call, so that the replica verifies often.
    """

    def __init__(self, publications: list[Publication], fates: list[str]) -> None:
        self._coming = publications
        self._told: list[Publication] = []
        self._lost: set[int] = set()
        self._truth = Records()
        self._fates = fates
        self._time = 0.0
        self.quiet = 0
        self.configuration = self

    def clock(self) -> float:
        self._time += 0.3
        return self._time

    async def load(self) -> Stored | None:
        await asyncio.sleep(0)
        if self._fate() in ("away", "garbled"):
            raise StoreUnavailable("away")
        if not self._truth.generation:
            self._happen()
        return Stored(self._truth.epoch, self._truth.generation, self._truth.by_key, str(len(self._told)))

    async def head(self) -> Head | None:
        return Head(self._truth.epoch, self._truth.generation)

    async def tail(self, position: str, block_ms: int) -> list[tuple[str, Publication]]:
        await asyncio.sleep(0)
        at, fate = int(position), self._fate()
        self._happen()
        match fate:
            case "away":
                raise StoreUnavailable("away")
            case "garbled":
                raise StoreCorrupt("garbled")
            case "late":
                return []
            case "lost":
                self._lost.add(len(self._told))
            case "repeated":
                at = max(0, at - 2)
        entries = [(str(n), p) for n, p in enumerate(self._told[at:], at + 1) if n not in self._lost]
        self.quiet = 0 if entries or self._coming or self._fates else self.quiet + 1
        return entries

    @property
    def truth(self) -> Records:
        return self._truth

    def _fate(self) -> str:
        return self._fates.pop() if self._fates else "well"

    def _happen(self) -> None:
        if self._coming:
            self._told.append(self._coming.pop(0))
            self._truth = fold(self._truth, self._told[-1])


changes = st.lists(
    st.one_of(
        st.sampled_from([ROUTE, SERVER, POD, OTHER, a_pod("p", "s", ip="10.9.9.9")]).map(Put),
        st.sampled_from([ROUTE.key, SERVER.key, POD.key]).map(Delete),
    ),
    max_size=3,
).map(tuple)


@st.composite
def histories(draw: st.DrawFn) -> list[Publication]:
    """Whole publications, each followed by steps; generations grow, but start anew after a lost store."""
    told, number = [], 0
    for epoch in range(draw(st.integers(1, 3))):
        number = draw(st.sampled_from([number, 0])) + 1
        kept = draw(changes)
        told.append(
            Publication(f"e{epoch}", number, tuple(c for c in kept if isinstance(c, Put)), whole=True)
        )
        for step_changes in draw(st.lists(changes, max_size=5)):
            number += 1
            told.append(Publication(f"e{epoch}", number, step_changes))
    return told


@settings(max_examples=80, deadline=None)
@given(
    histories(),
    st.lists(st.sampled_from(["well", "away", "garbled", "late", "lost", "repeated"]), max_size=10),
)
def test_whatever_happens_to_the_log_the_replica_ends_with_the_truth(
    history: list[Publication], fates: list[str]
) -> None:
    asyncio.run(_converges(Fates(list(history), list(fates))))


async def _converges(store: Fates) -> None:
    replica = Replica(store, store.clock)
    async with following(replica):
        # Ten quiet reads leave time for two verifications.
        await until(lambda: store.quiet > 10)
    truth = store.truth
    assert replica.snapshot == compile_snapshot(truth.epoch, truth.generation, truth.by_key.values())
