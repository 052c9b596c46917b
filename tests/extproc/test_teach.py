import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.sequences import Sequences, Turn
from extproc.state.store import Store, StoreUnavailable
from extproc.state.store.streams import START
from extproc.teach import Teach


class Learnt:
    """An outbox of frames."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.changed: Callable[[], object] = lambda: None

    def learn(self, *frames: bytes) -> None:
        self.frames += frames
        self.changed()

    def watch(self, changed: Callable[[], object]) -> None:
        self.changed = changed

    def take_outbox(self, limit_bytes: int) -> bytes:
        taken = b""
        while self.frames and (not taken or len(taken) + len(self.frames[0]) <= limit_bytes):
            taken += self.frames.popleft()
        return taken


class Published:
    """A store that does as it is told and remembers what was published."""

    def __init__(self) -> None:
        self.streams = self
        self.entries: list[tuple[int, bytes]] = []
        self.fates: list[str] = []
        """What becomes of the next entries: "lost" before they arrive, or "unanswered" after it."""
        self.away = False
        self.tries = 0

    async def publish(self, producer: str, sequence: int, frames: bytes) -> str:
        await asyncio.sleep(0)
        assert producer == "me"
        self.tries += 1
        fate = "lost" if self.away else self.fates.pop(0) if self.fates else "stored"
        if fate != "lost":
            self.entries.append((sequence, frames))
        if fate != "stored":
            raise StoreUnavailable("away")
        return "1-0"

    @property
    def new(self) -> list[bytes]:
        """What a reader takes, each entry once."""
        sequences = Sequences()
        return [f for number, f in self.entries if sequences.take("me", number, 0.0) is not Turn.AGAIN]


@asynccontextmanager
async def teaching(teach: Teach) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(teach.run())
        yield
        assert not loop.done()
        loop.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


async def test_what_is_learnt_is_published_in_order(store: Store) -> None:
    learnt = Learnt()
    async with teaching(Teach(store, learnt, "me")), asyncio.timeout(30):
        learnt.learn(b"one ", b"two ")
        while not (found := await store.streams.between(START, "+", 9))[0]:
            await asyncio.sleep(0.002)
        assert [(e.producer, e.sequence, e.frames) for e in found[0]] == [("me", 1, b"one two ")]
        learnt.learn(b"three")
        while len((found := await store.streams.between(START, "+", 9))[0]) < 2:
            await asyncio.sleep(0.002)

    assert (found[0][1].sequence, found[0][1].frames) == (2, b"three")


async def test_where_nothing_is_learnt_nothing_is_published() -> None:
    store = Published()
    async with teaching(Teach(store, Learnt(), "me")):
        await asyncio.sleep(0.05)

    assert store.tries == 0


async def test_entries_are_of_bounded_size() -> None:
    store, learnt = Published(), Learnt()
    learnt.learn(*[b"x" * 10_000] * 50)
    async with teaching(Teach(store, learnt, "me")):
        await until(lambda: sum(len(f) for _, f in store.entries) == 500_000)

    assert max(len(frames) for _, frames in store.entries) <= 64 * 1024
    assert [number for number, _ in store.entries] == list(range(1, len(store.entries) + 1))


async def test_while_the_store_is_away_everything_is_kept_within_bounds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, learnt = Published(), Learnt()
    store.away = True
    teach = Teach(store, learnt, "me")
    async with teaching(teach):
        for number in range(8):
            learnt.learn(b"%d " % number)
            tries = store.tries
            await until(lambda tries=tries: store.tries > tries)
        store.away = False
        await until(lambda: len(store.entries) >= 2)

    assert b"".join(store.new) == b"".join(b"%d " % number for number in range(8))
    assert len(store.entries) == 2
    assert teach.dropped == 0
    assert caplog.text.count("is not shared: away") == 1


async def test_of_too_much_the_oldest_is_dropped_and_leaves_a_gap() -> None:
    store, learnt = Published(), Learnt()
    store.away = True
    teach = Teach(store, learnt, "me")
    first = [b"%02d" % number + bytes(49_998) for number in range(20)]
    learnt.learn(*first)
    async with teaching(teach):
        await until(lambda: store.tries > 0)
        later = [b"%02d" % number + bytes(49_998) for number in range(20, 50)]
        learnt.learn(*later)
        await until(lambda: teach.dropped > 0)
        store.away = False
        await until(lambda: bool(store.entries) and store.entries[-1][1] == later[-1])

    published = [frames for _, frames in store.entries]
    assert published == (first + later)[-len(published) :]
    assert 900_000 < sum(map(len, published)) <= 1024 * 1024
    assert store.entries[0][0] == teach.dropped + 1
    assert teach.dropped + len(published) == 50


frames = st.lists(st.integers(1, 9).map(lambda n: bytes([n]) * n), max_size=4)


@settings(max_examples=20, deadline=None)
@given(st.lists(frames, max_size=6), st.lists(st.sampled_from(["lost", "unanswered", "stored"]), max_size=12))
def test_readers_take_everything_once_and_in_order(batches: list[list[bytes]], fates: list[str]) -> None:
    async def scenario() -> None:
        store, learnt = Published(), Learnt()
        store.fates = fates
        async with teaching(Teach(store, learnt, "me")):
            for batch in batches:
                learnt.learn(*batch)
                await asyncio.sleep(0.001)
            everything = b"".join(b"".join(batch) for batch in batches)
            await until(lambda: b"".join(store.new) == everything and not learnt.frames)

    asyncio.run(scenario())
