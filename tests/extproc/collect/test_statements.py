import asyncio
from contextlib import asynccontextmanager

import pytest

from extproc.collect.observer import Observer
from extproc.collect.statements import Statements
from extproc.state.store import Positions, StoreUnavailable


class Owner:
    """Owns what it is told."""

    def __init__(self, *pods):
        self.owned = frozenset(pods)


@asynccontextmanager
async def stating(streams, owner):
    statements = Statements(streams, owner)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(statements.run())
        try:
            yield statements
        finally:
            task.cancel()


@pytest.fixture
def observer_of(site_of, clock):
    return lambda name: Observer(site_of("10.0.0.1:8000", name), lambda _: False, clock, clock)


async def stated(store):
    return (await store.streams.read(Positions("0-0", "0-0"), 0)).statements


async def test_what_is_due_is_stated_together_and_once(store, observer_of, until, raw):
    async with stating(store.streams, Owner("pod/default/a", "pod/default/b")) as statements:
        for name in "ab":
            statements.due(observer_of(name))
        await until(lambda: stated(store))
        await asyncio.sleep(0.25)

    assert {one.endpoint for one in await stated(store)} == {"pod/default/a", "pod/default/b"}
    assert await raw.xlen("kvoy1:{g}:live") == 1


async def test_for_pods_of_others_nothing_is_said(store, observer_of, until):
    async with stating(store.streams, Owner("pod/default/b")) as statements:
        statements.due(observer_of("a"))
        statements.due(observer_of("b"))
        await until(lambda: stated(store))

    assert [one.endpoint for one in await stated(store)] == ["pod/default/b"]


async def test_the_age_is_as_of_the_publication(store, observer_of, clock, until):
    observer = observer_of("a")
    async with stating(store.streams, Owner("pod/default/a")) as statements:
        observer.failed("gone")
        statements.due(observer)
        await until(lambda: stated(store))

    assert (await stated(store))[0].failing == "gone"


async def test_a_store_that_is_away_is_told_of_once_and_forgotten(store, observer_of, until, caplog):
    class Away:
        calls = 0

        async def state(self, _):
            self.calls += 1
            if self.calls < 3:
                raise StoreUnavailable("away")

    away = Away()
    async with stating(away, Owner("pod/default/a")) as statements:
        for count in range(1, 4):
            statements.due(observer_of("a"))
            await until(lambda count=count: away.calls == count)

    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "what is observed of the engines can not be published: away"
    ]
