import asyncio
import os
import signal
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from extproc.state import keys
from extproc.state.records import Delete, Publication, Put
from extproc.state.store import Head, Store, StoreCorrupt, StoreUnavailable, backoff_s
from extproc.testing import a_pod, a_route, a_rule, a_server

ROUTE, SERVER, POD = a_route("r", a_rule("s"), model="m"), a_server("s"), a_pod("p", "s")
CONFIG, LOG = keys.config("g"), keys.log("g")
NOW = 0
"""Of `tail`: do not wait."""


def whole(epoch: str, generation: int, *records: object) -> Publication:
    return Publication(epoch, generation, tuple(Put(r) for r in records), whole=True)


def step(epoch: str, generation: int, *changes: Put | Delete) -> Publication:
    return Publication(epoch, generation, changes)


async def everything(raw: Redis) -> dict[bytes, object]:
    """All that Redis holds, byte for byte."""
    return {key: await raw.dump(key) for key in sorted(await raw.keys("*"))}


async def test_an_empty_store_holds_nothing(store: Store) -> None:
    assert await store.load() is None
    assert await store.head() is None
    assert await store.tail("0-0", NOW) == []


async def test_what_is_published_whole_is_loaded(store: Store) -> None:
    assert await store.publish(whole("e", 1, ROUTE, SERVER, POD))

    stored = await store.load()

    assert stored is not None
    assert (stored.epoch, stored.generation) == ("e", 1)
    assert stored.records == {r.key: r for r in (ROUTE, SERVER, POD)}
    assert await store.head() == Head("e", 1) == ("e", 1)


async def test_a_step_changes_what_it_names_and_nothing_else(store: Store) -> None:
    await store.publish(whole("e", 1, ROUTE, SERVER, POD))
    bigger = a_server("s", model="big")

    assert await store.publish(step("e", 2, Put(bigger), Delete(POD.key)))

    stored = await store.load()
    assert stored is not None
    assert (stored.generation, stored.records) == (2, {ROUTE.key: ROUTE, SERVER.key: bigger})


async def test_a_step_may_change_nothing(store: Store) -> None:
    await store.publish(whole("e", 1, POD))

    assert await store.publish(step("e", 2))
    assert await store.head() == Head("e", 2)


async def test_the_log_tells_every_publication_in_order(store: Store) -> None:
    told = [whole("e", 1, POD), step("e", 2, Put(SERVER)), step("e", 3, Delete(POD.key))]
    for publication in told:
        assert await store.publish(publication)

    entries = await store.tail("0-0", NOW)

    assert [publication for _, publication in entries] == told
    assert [p for _, p in await store.tail(entries[0][0], NOW)] == told[1:]
    assert await store.tail(entries[-1][0], NOW) == []


async def test_a_load_is_continued_by_the_log_without_gap_or_repeat(store: Store) -> None:
    await store.publish(whole("e", 1, POD))
    await store.publish(step("e", 2))
    stored = await store.load()
    assert stored is not None
    await store.publish(step("e", 3))

    assert [p.generation for _, p in await store.tail(stored.position, NOW)] == [3]


async def test_a_blocked_reader_is_woken_by_a_publication(open_store: Callable[[], Store]) -> None:
    reader, writer = open_store(), open_store()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(reader.tail("0-0", 60_000))
        await writer.publish(whole("e", 1, POD))

    assert [p.generation for _, p in reading.result()] == [1]


async def test_commands_are_answered_while_a_read_blocks(store: Store) -> None:
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(store.tail("0-0", 60_000))
        assert await store.head() is None
        await store.publish(whole("e", 1))
        await reading


async def test_a_cancelled_read_does_not_spoil_the_next(store: Store) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.tail("0-0", 60_000)
    await store.publish(whole("e", 1))

    assert len(await store.tail("0-0", NOW)) == 1


@pytest.mark.parametrize(
    "refused",
    [
        step("e", 4),
        step("e", 5),
        step("e", 7),
        step("other", 6),
        step("other", 1),
        whole("e", 6, POD),
        whole("e", 1, POD),
        whole("other", 5, POD),
        whole("other", 1, POD),
    ],
    ids=lambda p: f"{'whole' if p.whole else 'step'}-{p.epoch}-{p.generation}",
)
async def test_what_does_not_fit_changes_nothing(store: Store, raw: Redis, refused: Publication) -> None:
    await store.publish(whole("e", 5, ROUTE, SERVER))
    before = await everything(raw)

    assert not await store.publish(refused)
    assert await everything(raw) == before


@pytest.mark.parametrize("generation", [1, 2, 9])
async def test_a_step_never_fits_an_empty_store(store: Store, raw: Redis, generation: int) -> None:
    assert not await store.publish(step("e", generation, Put(POD)))
    assert await everything(raw) == {}


async def test_an_edit_after_a_flush_does_not_pass_for_the_configuration(store: Store, raw: Redis) -> None:
    await store.publish(whole("e", 1, ROUTE, SERVER, POD))
    await raw.flushall()

    assert not await store.publish(step("e", 2, Put(a_pod("q", "s"))))
    assert await store.load() is None


async def test_a_new_epoch_replaces_everything(store: Store) -> None:
    await store.publish(whole("e", 5, ROUTE, SERVER, POD))

    assert await store.publish(whole("f", 6, POD))

    stored = await store.load()
    assert stored is not None
    assert (stored.epoch, stored.generation, stored.records) == ("f", 6, {POD.key: POD})
    assert not await store.publish(step("e", 6, Put(SERVER)))
    assert await store.publish(step("f", 7, Put(SERVER)))


async def test_of_two_publishers_that_begin_at_once_one_is_refused(open_store: Callable[[], Store]) -> None:
    one, two = open_store(), open_store()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(one.publish(whole("one", 1, POD)))
        second = tasks.create_task(two.publish(whole("two", 1, SERVER)))

    assert first.result() != second.result()
    stored = await one.load()
    assert stored is not None
    expected = ("one", {POD.key: POD}) if first.result() else ("two", {SERVER.key: SERVER})
    assert (stored.epoch, stored.records) == expected


async def test_of_two_steps_to_one_generation_one_is_refused(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    await stores[0].publish(whole("e", 1))
    async with asyncio.TaskGroup() as tasks:
        tries = [
            tasks.create_task(s.publish(step("e", 2, Put(a_pod(f"p{n}"))))) for n, s in enumerate(stores)
        ]

    assert sorted(t.result() for t in tries) == [False, False, False, True]
    stored = await stores[0].load()
    assert stored is not None
    assert len(stored.records) == 1
    assert len(await stores[0].tail("0-0", NOW)) == 2


async def test_a_reader_never_sees_half_a_publication(open_store: Callable[[], Store]) -> None:
    writer, reader = open_store(), open_store()
    await writer.publish(whole("e", 1, *(a_pod(f"p{n}", "s1") for n in range(50))))
    done = asyncio.Event()

    async def write() -> None:
        for generation in range(2, 40):
            pods = (Put(a_pod(f"p{n}", f"s{generation}")) for n in range(50))
            assert await writer.publish(step("e", generation, *pods))
        done.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        while not done.is_set():
            stored = await reader.load()
            assert stored is not None
            servers = {pod.servers for pod in stored.records.values()}
            assert servers == {(f"s{stored.generation}",)}


async def test_a_publication_that_fails_changes_nothing(store: Store, raw: Redis) -> None:
    await store.publish(whole("e", 1, POD))
    await raw.delete(LOG)
    await raw.set(LOG, "not a stream")
    before = await everything(raw)

    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.publish(step("e", 2, Put(SERVER)))

    assert await everything(raw) == before


@pytest.mark.parametrize("missing", ["epoch", "generation"])
async def test_what_is_incomplete_is_as_good_as_nothing(store: Store, raw: Redis, missing: str) -> None:
    await store.publish(whole("e", 5, POD))
    await raw.hdel(CONFIG, missing)

    assert await store.load() is None
    assert await store.head() is None
    assert not await store.publish(step("e", 6))
    assert await store.publish(whole("f", 1, SERVER))
    stored = await store.load()
    assert stored is not None
    assert stored.records == {SERVER.key: SERVER}


async def test_the_log_is_bounded(store: Store, raw: Redis) -> None:
    await store.publish(whole("e", 1))
    for generation in range(2, 2500):
        assert await store.publish(step("e", generation))

    assert 2000 <= await raw.xlen(LOG) < 2200


async def test_scripts_survive_being_forgotten(store: Store, raw: Redis) -> None:
    await store.publish(whole("e", 1, POD))
    await store.load()
    await raw.script_flush()

    assert await store.load() is not None
    assert await store.publish(step("e", 2))
    await raw.script_flush()
    assert (await store.state_inflight("i", 5000, {"p": 1})).pods == {"p": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (POD.key, b"\xc1 not msgpack"),
        (POD.key, b"\x80"),
        ("pod/default/q", b"\x01"),
        ("generation", "seven"),
        ("epoch", b"\xff"),
    ],
)
async def test_an_unreadable_configuration_is_named(
    store: Store, raw: Redis, field: str, value: bytes | str
) -> None:
    await store.publish(whole("e", 1, POD))
    await raw.hset(CONFIG, field, value)

    with pytest.raises(StoreCorrupt, match="configuration of group 'g' is unreadable"):
        await store.load()


async def test_a_record_under_another_key_is_unreadable(store: Store, raw: Redis) -> None:
    await store.publish(whole("e", 1, POD))
    await raw.hset(CONFIG, "pod/default/other", await raw.hget(CONFIG, POD.key))

    with pytest.raises(StoreCorrupt, match="field pod/default/other holds pod/default/p"):
        await store.load()


@pytest.mark.parametrize("fields", [{"p": b"\xc1"}, {"other": "x"}])
async def test_an_unreadable_log_entry_is_named(store: Store, raw: Redis, fields: dict[str, object]) -> None:
    await raw.xadd(LOG, fields)

    with pytest.raises(StoreCorrupt, match="log of group 'g' is unreadable"):
        await store.tail("0-0", NOW)


async def test_groups_do_not_see_each_other(valkey: object, store: Store) -> None:
    other = Store.connect(valkey.url, "other")
    try:
        await store.publish(whole("e", 1, POD))
        await store.state_inflight("i", 5000, {"p": 1})

        assert await other.load() is None
        assert (await other.state_inflight("j", 5000, {})).pods == {}
    finally:
        await other.close()


async def test_a_stopped_store_is_reported_and_found_again(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    try:
        await store.publish(whole("e", 1, POD))
        own_valkey.kill()
        for attempt in (store.load(), store.head(), store.tail("0-0", NOW), store.publish(whole("e", 1))):
            with pytest.raises(StoreUnavailable, match=own_valkey.url):
                await attempt
        own_valkey.start()

        assert await store.load() is None
        assert await store.publish(whole("f", 1, POD))
        assert len(await store.tail("0-0", NOW)) == 1
    finally:
        await store.close()


async def test_a_store_that_dies_under_a_blocked_read_ends_the_read(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_kill_when_blocked(own_valkey))
            with pytest.raises(StoreUnavailable):
                await store.tail("0-0", 60_000)
    finally:
        await store.close()


async def _kill_when_blocked(server: object) -> None:
    watcher = Redis.from_url(server.url)
    try:
        async with asyncio.timeout(20):
            while (await watcher.info("clients"))["blocked_clients"] == 0:
                await asyncio.sleep(0.01)
    finally:
        await watcher.aclose()
    server.kill()


async def test_a_store_that_hangs_is_given_up(own_valkey: object) -> None:
    store = Store.connect(own_valkey.url, "g")
    await store.head()
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(StoreUnavailable):
                await store.head()
            with pytest.raises(StoreUnavailable):
                await store.tail("0-0", 100)
        os.kill(own_valkey.pid, signal.SIGCONT)
        assert await store.head() is None
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
        await store.close()


async def test_an_address_without_a_store_is_reported_without_its_password() -> None:
    for url in ("unix://me:secret@/tmp/kvoy-nothing.sock", "redis://me:secret@127.0.0.1:1/0"):
        store = Store.connect(url, "g")
        with pytest.raises(StoreUnavailable) as error:
            await store.head()
        await store.close()
        assert "secret" not in str(error.value)
        assert "/tmp/kvoy-nothing.sock" in str(error.value) or "127.0.0.1:1" in str(error.value)


@pytest.mark.parametrize("url", ["http://h", "h:6379", ""])
def test_what_is_no_redis_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="unix://"):
        Store.connect(url, "g")


def test_back_off_grows_to_a_quarter_second_and_stays() -> None:
    assert [backoff_s(n) for n in (0, 1, 2, 3, 5, 6, 10_000)] == [0, 0.01, 0.02, 0.04, 0.16, 0.25, 0.25]


# In flight.


async def test_totals_are_the_sum_over_instances(store: Store) -> None:
    assert (await store.state_inflight("one", 5000, {"a": 2, "b": 1})).pods == {"a": 2, "b": 1}
    assert (await store.state_inflight("two", 5000, {"a": 3})).pods == {"a": 5, "b": 1}
    assert (await store.state_inflight("one", 5000, {"b": 4})).pods == {"a": 3, "b": 4}


async def test_saying_it_twice_changes_nothing(store: Store) -> None:
    for _ in range(3):
        totals = await store.state_inflight("one", 5000, {"a": 2})

    assert totals.pods == {"a": 2}


async def test_an_instance_is_known_while_it_holds_a_lease(store: Store, raw: Redis) -> None:
    assert not (await store.state_inflight("one", 5000, {"a": 1})).known
    assert (await store.state_inflight("one", 5000, {"a": 1})).known
    await raw.flushall()
    assert not (await store.state_inflight("one", 5000, {"a": 1})).known


async def test_after_a_flush_one_statement_is_enough(store: Store, raw: Redis) -> None:
    await store.state_inflight("one", 5000, {"a": 2})
    await raw.flushall()

    assert (await store.state_inflight("one", 5000, {"a": 3})).pods == {"a": 3}


async def test_after_the_last_release_nothing_is_left(store: Store, raw: Redis) -> None:
    await store.state_inflight("one", 5000, {"a": 2, "b": 1})
    await store.state_inflight("two", 5000, {"a": 1})
    await store.state_inflight("one", 5000, {})
    await store.state_inflight("two", 5000, {})

    assert await raw.keys("*inflight*") == [keys.inflight_leases("g").encode()]


async def test_a_leaving_instance_takes_its_counts_along(store: Store, raw: Redis) -> None:
    await store.state_inflight("one", 5000, {"a": 2})
    await store.state_inflight("two", 5000, {"a": 1})
    await store.drop_instance("one")
    await store.drop_instance("never heard of")

    assert (await store.state_inflight("two", 5000, {"a": 1})).pods == {"a": 1}
    assert await raw.zrange(keys.inflight_leases("g"), 0, -1) == [b"two"]


async def expire(raw: Redis, *instances: str) -> None:
    """The instances' leases have just run out."""
    await raw.zadd(keys.inflight_leases("g"), dict.fromkeys(instances, 1))


async def test_a_crashed_instance_is_reaped_by_another(store: Store, raw: Redis) -> None:
    await store.state_inflight("crashed", 5000, {"a": 7, "b": 1})
    await store.state_inflight("alive", 5000, {"a": 1})
    await expire(raw, "crashed")

    assert (await store.state_inflight("alive", 5000, {"a": 1})).pods == {"a": 1}
    assert await raw.exists(keys.inflight_of("g", "crashed")) == 0


async def test_a_lease_runs_out_by_itself(store: Store) -> None:
    await store.state_inflight("crashed", 1, {"a": 7})

    async with asyncio.timeout(20):
        while (await store.state_inflight("alive", 5000, {})).pods:
            await asyncio.sleep(0.005)


async def test_an_instance_back_from_the_dead_counts_once(store: Store, raw: Redis) -> None:
    await store.state_inflight("zombie", 5000, {"a": 7})
    await expire(raw, "zombie")
    await store.state_inflight("alive", 5000, {})

    back = await store.state_inflight("zombie", 5000, {"a": 6})

    assert (back.known, back.pods) == (False, {"a": 6})


async def test_an_instance_whose_lease_ran_out_unnoticed_just_goes_on(store: Store, raw: Redis) -> None:
    await store.state_inflight("late", 5000, {"a": 7})
    await expire(raw, "late")

    late = await store.state_inflight("late", 5000, {"a": 6})

    assert (late.known, late.pods) == (True, {"a": 6})


async def test_a_mass_crash_is_reaped_a_few_at_a_time(store: Store, raw: Redis) -> None:
    crashed = [f"crashed-{n}" for n in range(10)]
    for instance in crashed:
        await store.state_inflight(instance, 5000, {"a": 1})
    await expire(raw, *crashed)

    seen = [(await store.state_inflight("alive", 5000, {})).pods for _ in range(4)]

    assert seen == [{"a": 6}, {"a": 2}, {}, {}]


async def test_totals_that_are_no_numbers_are_named(store: Store, raw: Redis) -> None:
    await raw.hset(keys.inflight_total("g"), "a", "many")

    with pytest.raises(StoreCorrupt, match="in-flight totals"):
        await store.state_inflight("one", 5000, {})


INSTANCES, PODS = ["i0", "i1", "i2", "i3"], ["a", "b", "c"]
moves = st.lists(
    st.tuples(
        st.sampled_from(INSTANCES),
        st.one_of(
            st.dictionaries(st.sampled_from(PODS), st.integers(1, 9)),
            st.sampled_from(["crash", "leave"]),
        ),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves)
def test_totals_are_those_of_the_living_whatever_happens(valkey: object, moves: list) -> None:
    asyncio.run(_walk(valkey.url, moves))


async def _walk(url: str, moves: list) -> None:
    store, raw = Store.connect(url, "g"), Redis.from_url(url)
    try:
        await raw.flushall()
        living: dict[str, dict[str, int]] = {}
        for instance, move in moves:
            if move == "crash":
                if living.pop(instance, None) is not None:
                    await expire(raw, instance)
                totals = await store.state_inflight("observer", 60_000, {})
            elif move == "leave":
                living.pop(instance, None)
                await store.drop_instance(instance)
                totals = await store.state_inflight("observer", 60_000, {})
            else:
                living[instance] = move
                totals = await store.state_inflight(instance, 60_000, move)
            assert totals.pods == _summed(living)
        for instance in living:
            await store.state_inflight(instance, 60_000, {})
        assert await raw.keys("*inflight:total") + await raw.keys("*inflight:of:*") == []
    finally:
        await store.close()
        await raw.aclose()


def _summed(living: dict[str, dict[str, int]]) -> dict[str, int]:
    found = {pod: sum(counts.get(pod, 0) for counts in living.values()) for pod in PODS}
    return {pod: count for pod, count in found.items() if count}


async def test_a_cancellation_that_redis_py_answers_with_a_result_is_not_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def swallowing(*_: object) -> list[None]:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return [None, None]
        raise AssertionError

    monkeypatch.setattr(store._commands, "hmget", swallowing)
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(store.head())
        await asyncio.sleep(0)
        looking.cancel()

    assert looking.cancelled()
