import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.collect import ownership as module
from extproc.collect.ownership import Ownership, share
from extproc.state import keys
from extproc.state.store import StoreUnavailable

members = st.sets(st.text(max_size=6), min_size=1, max_size=6)
pods = st.sets(st.text(max_size=6), max_size=30)


@given(pods, members)
def test_every_pod_has_exactly_one_collector(pods, members):
    shares = [share(pods, members, member) for member in members]

    assert sum(map(len, shares)) == len(pods)
    assert frozenset().union(*shares) == pods


@given(pods, members, st.text(max_size=6))
def test_a_collector_that_comes_takes_only_what_becomes_its_own(pods, members, newcomer):
    for member in members - {newcomer}:
        before, after = share(pods, members, member), share(pods, members | {newcomer}, member)
        assert after <= before
        assert before - after <= share(pods, members | {newcomer}, newcomer)


def test_the_shares_are_about_equal():
    pods = [f"pod/default/{at}" for at in range(400)]

    for member in "abcd":
        assert 60 <= len(share(pods, set("abcd"), member)) <= 140


PODS = {f"pod/default/{at}" for at in range(20)}


@asynccontextmanager
async def owning(store, member, pods=PODS, clock=None):
    loop = asyncio.get_running_loop()
    adjusted = []
    one = Ownership(store.leases, member, lambda: pods, adjusted.append, clock or loop.time)
    one.adjusted = adjusted
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(one.run())
        one.kill = task.cancel
        try:
            yield one
        finally:
            task.cancel()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "RENEWAL_S", 0.05)


async def test_one_collector_owns_everything(store, until):
    async with owning(store, "a") as a:
        await until(lambda: a.owned == PODS)
        assert a.adjusted[-1] == PODS
        assert a.members == {"a"}
        assert all(a.holds(pod) for pod in PODS)


async def test_two_share_and_never_own_a_pod_twice(open_store, until):
    async with owning(open_store(), "a") as a:
        await until(lambda: a.owned == PODS)
        async with owning(open_store(), "b") as b:
            async with asyncio.timeout(20):
                while a.owned | b.owned != PODS or not b.owned:
                    assert not a.owned & b.owned
                    await asyncio.sleep(0.001)
            assert b.owned == share(PODS, {"a", "b"}, "b")
        await until(lambda: a.owned == PODS)


async def test_what_a_killed_one_held_is_free_when_its_lease_has_run_out(open_store, until, monkeypatch):
    monkeypatch.setattr(module, "LEASE_S", 0.5)
    # A killed process says no farewell.
    monkeypatch.setattr(Ownership, "_leave", lambda self: asyncio.sleep(0))
    async with owning(open_store(), "a") as a, owning(open_store(), "b") as b:
        await until(lambda: a.owned and b.owned)
        b.kill()
        await until(lambda: a.owned == PODS)


async def test_a_pod_that_is_no_more_is_given_up(store, raw, until):
    pods = set(PODS)
    async with owning(store, "a", pods) as a:
        await until(lambda: a.owned == PODS)
        gone = pods.pop()
        await until(lambda: a.owned == PODS - {gone})
        assert not a.holds(gone)
        assert await raw.get(keys.lease("g", module.KIND, gone)) is None


async def test_who_cannot_renew_owns_nothing_by_its_own_clock(store, until, clock):
    async with owning(store, "a", clock=clock) as a:
        await until(lambda: a.owned == PODS)

        async def refuse(*_):
            raise StoreUnavailable("away")

        a._leases = type("Away", (), {"appear": refuse, "release": refuse, "disappear": refuse})()
        await asyncio.sleep(0.1)
        clock.now += module.LEASE_S

        assert not a.current
        assert a.owned == frozenset()
        assert a.holds(next(iter(PODS)))
        a._leases = store.leases
        await until(lambda: a.owned == PODS)


async def test_a_flushed_store_is_claimed_anew(store, raw, until):
    async with owning(store, "a") as a:
        await until(lambda: a.owned == PODS)
        await raw.flushall()
        await until(lambda: raw.get(keys.lease("g", module.KIND, next(iter(PODS)))))
        assert a.owned == PODS


async def test_leaving_frees_everything_at_once(store, raw, until):
    async with owning(store, "a") as a:
        await until(lambda: a.owned == PODS)

    assert await raw.keys("*lease*") == []
    assert await raw.zcard(keys.members("g", module.KIND)) == 0


async def test_a_store_that_is_away_is_told_of_once(store, until, caplog):
    async with owning(store, "a") as a:
        await until(lambda: a.owned == PODS)
        working, a._leases = a._leases, None

        async def refuse(*_):
            raise StoreUnavailable("away")

        a._leases = type("Away", (), {"appear": refuse})()
        await until(lambda: a._failures > 3)
        a._leases = working
        await until(lambda: not a._failures)

    assert [record.message for record in caplog.records] == [
        "leases are not renewed, in 3 s nothing is published any more: away"
    ]
