import asyncio
from contextlib import asynccontextmanager

from extproc.collect import changes as module
from extproc.collect.changes import Changes
from extproc.state.store import StoreUnavailable


class Owner:
    """Holds what it is told; its lease runs as long as `current`."""

    def __init__(self, *pods):
        self.pods = pods
        self.current = True

    def holds(self, pod):
        return pod in self.pods


class Away:
    """Streams that can go away; with `lossy`, after they have taken the entry."""

    def __init__(self, streams):
        self.streams = streams
        self.away = self.lossy = False
        self.calls = 0

    async def publish(self, *entry):
        self.calls += 1
        if self.lossy:
            await self.streams.publish(*entry)
        if self.away or self.lossy:
            raise StoreUnavailable("away")
        return await self.streams.publish(*entry)


@asynccontextmanager
async def publishing(streams, owner):
    changes = Changes(streams, "me", owner)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(changes.run())
        try:
            yield changes
        finally:
            task.cancel()


async def entries(store):
    found, _ = await store.streams.between("0-0", "+", 1000)
    assert {entry.producer for entry in found} <= {"me"}
    return [(entry.sequence, entry.frames) for entry in found]


async def test_changes_arrive_in_order_and_numbered(store, until):
    async with publishing(store.streams, Owner("p")) as changes:
        changes.publish("p", b"one")
        changes.publish("p", b"two")
        await until(lambda: changes.published == 1)
        changes.publish("p", b"three")
        await until(lambda: changes.published == 2)

    assert await entries(store) == [(1, b"onetwo"), (2, b"three")]


async def test_many_changes_are_several_entries(store, until, monkeypatch):
    monkeypatch.setattr(module, "_ENTRY_BYTES", 4)
    async with publishing(store.streams, Owner("p")) as changes:
        for frames in (b"aaaa", b"bbbb", b"c", b"d"):
            changes.publish("p", frames)
        await until(lambda: changes.published == 3)

    assert await entries(store) == [(1, b"aaaa"), (2, b"bbbb"), (3, b"cd")]


async def test_for_pods_of_others_nothing_is_said(store, until):
    async with publishing(store.streams, Owner("ours")) as changes:
        changes.publish("theirs", b"x")
        changes.publish("ours", b"y")
        await until(lambda: changes.published)

    assert await entries(store) == [(1, b"y")]


async def test_without_a_lease_changes_wait(store, until):
    owner = Owner("p")
    owner.current = False
    async with publishing(store.streams, owner) as changes:
        changes.publish("p", b"x")
        await asyncio.sleep(0.1)
        assert await entries(store) == []

        owner.current = True
        await until(lambda: changes.published)

    assert await entries(store) == [(1, b"x")]


async def test_an_entry_whose_outcome_is_unknown_is_repeated_under_its_number(store, until):
    streams = Away(store.streams)
    streams.lossy = True
    async with publishing(streams, Owner("p")) as changes:
        changes.publish("p", b"x")
        await until(lambda: streams.calls == 1)
        streams.lossy = False
        changes.publish("p", b"y")
        await until(lambda: changes.published == 2)

    found = await entries(store)
    assert found[-1] == (2, b"y")
    assert set(found[:-1]) == {(1, b"x")}


async def test_what_had_to_be_dropped_leaves_a_gap_that_is_seen_at_once(store, until, monkeypatch, caplog):
    monkeypatch.setattr(module, "QUEUE_BYTES", 10)
    streams = Away(store.streams)
    async with publishing(streams, Owner("p")) as changes:
        changes.publish("p", b"first")
        await until(lambda: changes.published == 1)
        streams.away = True
        changes.publish("p", b"pending")
        await until(lambda: streams.calls > 2)
        changes.publish("p", b"too")
        changes.publish("p", b"much data")
        streams.away = False
        await until(lambda: changes.published == 2)
        changes.publish("p", b"later")
        await until(lambda: changes.published == 3)

    (one, _), *rest = await entries(store)
    assert one == 1
    (gap, nothing), (after, later) = rest
    assert gap > 2
    assert (after, nothing, later) == (gap + 1, b"", b"later")
    assert changes.dropped == len("toomuch data")
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


async def test_a_drop_while_an_entry_is_on_its_way_is_seen_too(store, until, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_BYTES", 10)
    owner = Owner("p")

    class Slow:
        async def publish(self, *entry):
            if changes.dropped == 0:
                changes.publish("p", b"x" * 11)
            return await store.streams.publish(*entry)

    async with publishing(Slow(), owner) as changes:
        changes.publish("p", b"first")
        await until(lambda: changes.published == 2)

    assert await entries(store) == [(1, b"first"), (3, b"")]
