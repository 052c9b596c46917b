import asyncio
import logging
import random
import time
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from extproc.cache import frames, snapshots
from extproc.cache.frames import Namespace, Operation
from extproc.collect.kv.feed import KvFeed, Patience
from extproc.collect.kv.target import Target
from extproc.state.records import KvEvents
from tests.extproc.collect.kv.pool import BLOCK, CLEARED, SECRET, Pool, own_chain, removed, stored

LIFE = 12
QUICK = Patience(settle_s=0.05, probe_s=0.1, answer_s=10.0, retry_s=0.1)
NEVER = 1e6
PROMPT = list(range(100, 100 + 3 * BLOCK))


class Follower:
    """A feed, and what somebody holds who follows its frames."""

    def __init__(self, feed_of):
        self.held = set()
        self.operations = []
        self.feed = feed_of(self._publish)

    def _publish(self, raw):
        for frame in frames.unpack(raw):
            assert (frame.life, frame.namespace) == (LIFE, Namespace.KV)
            self.operations.append(frame.operation)
            match frame.operation:
                case Operation.ADD:
                    self.held |= set(frame.numbers())
                case Operation.REMOVE:
                    self.held -= set(frame.numbers())
                case Operation.CLEAR:
                    self.held = set()

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.feed.run())
            try:
                yield self
            finally:
                task.cancel()

    async def until(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, (self.feed.counts, self.operations[-10:])
            await asyncio.sleep(0.005)

    async def holds(self, blocks):
        await self.until(lambda: self.held == set(blocks))
        assert self.feed.blocks == len(self.held)

    async def applied(self, batches):
        await self.until(lambda: self.feed.counts.batches >= batches)


@pytest.fixture
async def sources():
    """What the engine answers about its events."""
    return {}


@pytest.fixture
async def url(sources):
    async def respond(_):
        return web.json_response(sources)

    app = web.Application()
    app.router.add_get("/kv_event_sources", respond)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def engine(publish, sources):
    """Starts the publisher that the engine tells of."""

    def start(repeats=True, **options):
        publisher = publish(**options)
        sources["0"] = {"endpoint": publisher.endpoint}
        if repeats:
            sources["0"]["replay_endpoint"] = publisher.replay_endpoint
        return publisher

    return start


@pytest.fixture
def follower(sockets, http, url):
    def start(patience=QUICK, configured=None):
        target = Target("pod/ns/a", LIFE, "127.0.0.1", url, 0, "vLLM", configured, SECRET)
        return Follower(lambda publish: KvFeed(target, publish, http, sockets, time.time, patience))

    return start


async def heard(follower, publisher):
    """The subscription has reached the publisher."""
    before = follower.feed.counts.lag_s
    deadline = time.monotonic() + 20
    while follower.feed.counts.lag_s == before:
        assert time.monotonic() < deadline
        publisher.publish()
        await asyncio.sleep(0.01)


async def test_what_happened_before_is_learnt(engine, follower):
    publisher = engine()
    publisher.publish(stored([1, 2, 3], PROMPT))
    publisher.publish(removed(3))

    async with follower().running() as following:
        await following.holds(own_chain(PROMPT)[:2])
    assert following.operations == [Operation.CLEAR, Operation.ADD, Operation.REMOVE]
    assert following.feed.counts.clears == 1
    assert following.feed.block_size == BLOCK


async def test_what_happens_is_followed(engine, follower):
    publisher = engine()
    async with follower(Patience()).running() as following:
        await heard(following, publisher)
        publisher.publish(stored([1, 2], PROMPT[: 2 * BLOCK]))
        publisher.publish(stored([3], PROMPT[2 * BLOCK :], parent=2))
        await following.holds(own_chain(PROMPT))
        publisher.publish(CLEARED, stored([1], PROMPT[:BLOCK]))
        await following.holds(own_chain(PROMPT)[:1])
        counts = following.feed.counts
        assert counts.blocks == 4
        assert (counts.orphans, counts.skipped, counts.clears) == (0, 0, 1)
        assert 0 <= counts.lag_s < 20
        assert following.feed.source.endpoint == publisher.endpoint
    assert following.feed.source is None


async def test_lost_batches_are_asked_for(engine, follower):
    publisher = engine()
    async with follower(Patience(probe_s=NEVER)).running() as following:
        await heard(following, publisher)
        publisher.publish(stored([1], PROMPT[:BLOCK]), lost=True)
        publisher.publish(stored([2], PROMPT[BLOCK : 2 * BLOCK], parent=1), lost=True)
        publisher.publish(stored([3], PROMPT[2 * BLOCK :], parent=2))
        await following.holds(own_chain(PROMPT))
    assert following.feed.counts.gaps == 1
    assert following.feed.counts.clears == 1
    assert following.feed.counts.orphans == 0


async def test_a_lost_last_batch_is_found_without_another(engine, follower):
    publisher = engine()
    async with follower().running() as following:
        await heard(following, publisher)
        publisher.publish(stored([1], PROMPT[:BLOCK]), lost=True)
        await following.holds(own_chain(PROMPT)[:1])


async def test_batches_that_can_not_be_had_again_cost_everything_known(engine, follower):
    publisher = engine(buffer=1)
    async with follower(Patience(probe_s=NEVER)).running() as following:
        await heard(following, publisher)
        publisher.publish(stored([1, 2, 3], PROMPT))
        await following.holds(own_chain(PROMPT))
        clears = following.feed.counts.clears
        publisher.publish(removed(3), lost=True)
        publisher.publish(stored([4], [7] * BLOCK))
        await following.holds(own_chain([7] * BLOCK))
    assert following.feed.counts.clears == clears + 1


async def test_a_torn_answer_is_asked_for_again(engine, follower):
    publisher = engine()
    for at in range(3):
        publisher.publish(stored([at], PROMPT[at * BLOCK : (at + 1) * BLOCK], parent=at - 1 if at else None))
    publisher.torn = {1}

    async with follower(Patience(probe_s=NEVER)).running() as following:
        await following.holds(own_chain(PROMPT))
    assert publisher.asked[:2] == [0, 0]
    assert following.feed.counts.clears == 1


async def test_an_answer_that_is_torn_for_ever_is_given_up(engine, follower):
    publisher = engine()
    for at in range(3):
        publisher.publish(stored([at], PROMPT[at * BLOCK : (at + 1) * BLOCK]))
    publisher.torn = {0, 1, 2}

    async with follower(Patience(settle_s=NEVER)).running() as following:
        await following.until(lambda: publisher.asked)
        publisher.publish(stored([9], [7] * BLOCK))
        await following.until(lambda: own_chain([7] * BLOCK)[0] in following.held)


async def test_a_restarted_engine_begins_anew(engine, follower):
    old = engine()
    async with follower(Patience(probe_s=NEVER)).running() as following:
        await heard(following, old)
        old.publish(stored([1, 2, 3], PROMPT))
        await following.holds(own_chain(PROMPT))
        old.close()
        new = engine(**old.ports)
        new.publish(stored([5], [7] * BLOCK))
        await heard(following, new)
        await following.holds(own_chain([7] * BLOCK))
    assert following.feed.counts.clears == 2


async def test_a_restart_is_found_without_another_batch(engine, follower):
    old = engine()
    async with follower().running() as following:
        old.publish(stored([1, 2, 3], PROMPT))
        await following.holds(own_chain(PROMPT))
        old.close()
        new = engine(**old.ports)
        new.publish(stored([5], [7] * BLOCK), lost=True)
        await following.holds(own_chain([7] * BLOCK))


async def test_an_engine_that_repeats_nothing_is_followed_from_now_on(engine, follower, caplog):
    publisher = engine(repeats=False)
    publisher.publish(stored([1], PROMPT[:BLOCK]))
    async with follower().running() as following:
        await heard(following, publisher)
        publisher.publish(stored([4], [7] * BLOCK))
        await following.holds(own_chain([7] * BLOCK))
        publisher.publish(stored([5], [8] * BLOCK), lost=True)
        publisher.publish(stored([6], [9] * BLOCK))
        await following.holds(own_chain([9] * BLOCK))
    assert publisher.asked == []
    assert [record.message for record in caplog.records if "replay_endpoint" in record.message]


async def test_an_engine_that_does_not_answer_is_followed_and_asked_rarely(engine, follower, caplog):
    publisher = engine()
    publisher.mute = True
    patience = Patience(settle_s=0.01, probe_s=0.01, answer_s=0.05, retry_s=NEVER)
    async with follower(patience).running() as following:
        await following.until(lambda: publisher.asked)
        await heard(following, publisher)
        publisher.publish(stored([4], [7] * BLOCK))
        await following.holds(own_chain([7] * BLOCK))
        publisher.publish(lost=True)
        publisher.publish(stored([5], [8] * BLOCK))
        await following.holds(own_chain([8] * BLOCK))
    assert len(publisher.asked) <= 2, "at the start, and when the subscription was there"
    assert len([record for record in caplog.records if "did not repeat" in record.message]) == 1


async def test_an_engine_that_answers_again_is_trusted_again(engine, follower, caplog):
    caplog.set_level(logging.INFO)
    publisher = engine()
    publisher.mute = True
    async with follower(
        Patience(settle_s=0.01, probe_s=0.02, answer_s=0.05, retry_s=0.1)
    ).running() as following:
        await following.until(lambda: publisher.asked)
        publisher.publish(stored([1, 2, 3], PROMPT), lost=True)
        publisher.mute = False
        await following.holds(own_chain(PROMPT))
        await following.until(lambda: "arrive in full" in caplog.text)


@pytest.mark.parametrize("broken", [b"", b"\xc1", b"\x93\x01\x02\x03"])
async def test_after_a_batch_that_can_not_be_read_nothing_is_known(engine, follower, broken, caplog):
    publisher = engine()
    async with follower(Patience(probe_s=NEVER)).running() as following:
        await heard(following, publisher)
        publisher.publish(stored([1, 2, 3], PROMPT))
        await following.holds(own_chain(PROMPT))
        publisher.send(broken)
        publisher.publish(stored([4], [7] * BLOCK))
        await following.holds(own_chain([7] * BLOCK))
    counts = following.feed.counts
    assert (counts.skipped, counts.gaps) == (1, 0)
    assert 0 <= counts.lag_s < 20
    assert "pod/ns/a" in caplog.text


async def test_a_batch_that_can_not_be_read_is_dropped_once(engine, follower):
    publisher = engine()
    async with follower().running() as following:
        publisher.publish(stored([1, 2, 3], PROMPT))
        publisher.send(b"\xc1")
        await following.applied(2)
        asked = len(publisher.asked)
        await following.until(lambda: len(publisher.asked) > asked + 2)
    assert following.feed.counts.batches == 2
    assert following.feed.counts.clears == 1


async def test_another_collector_continues_without_asking_for_everything(engine, follower):
    publisher = engine(buffer=3)
    first, second = follower(Patience(probe_s=NEVER)), follower(Patience(settle_s=NEVER))
    async with first.running():
        await heard(first, publisher)
        publisher.publish(stored([1, 2], PROMPT[: 2 * BLOCK]))
        await first.holds(own_chain(PROMPT)[:2])
    snapshot = first.feed.snapshot("7-1")
    decoded = snapshots.decode(snapshot)
    assert decoded.position == "7-1"
    assert set(frames.numbers(decoded.own)) == first.held
    publisher.publish(stored([3], PROMPT[2 * BLOCK :], parent=2))

    assert second.feed.restore(snapshot)
    second.held = set(first.held)
    async with second.running():
        await second.holds(own_chain(PROMPT))
    assert second.operations == [Operation.ADD]
    assert publisher.asked[-1] == decoded.sequence


async def test_a_snapshot_too_old_to_continue_is_dropped(engine, follower):
    publisher = engine(buffer=2)
    first, second = follower(Patience(probe_s=NEVER)), follower()
    async with first.running():
        await heard(first, publisher)
        publisher.publish(stored([1, 2, 3], PROMPT))
        await first.holds(own_chain(PROMPT))
    for _ in range(4):
        publisher.publish()
    publisher.publish(stored([4], [7] * BLOCK))

    assert second.feed.restore(first.feed.snapshot("0-0"))
    second.held = set(first.held)
    async with second.running():
        await second.holds(own_chain([7] * BLOCK))
    assert second.operations[0] is Operation.CLEAR


async def test_a_snapshot_is_given_only_after_a_change(engine, follower):
    publisher = engine()
    following = follower(Patience(probe_s=NEVER))
    async with following.running():
        await heard(following, publisher)
        assert following.feed.snapshot("0-0") is not None
        assert following.feed.snapshot("0-0") is None
        publisher.publish(stored([1], PROMPT[:BLOCK]))
        await following.holds(own_chain(PROMPT)[:1])
        stored_form = following.feed.snapshot("0-0")
        assert stored_form is not None

    other = follower()
    assert other.feed.restore(stored_form)
    assert other.feed.snapshot("0-0") is None


@pytest.mark.parametrize(
    "stored_form",
    [
        b"",
        b"\xc1",
        b"\x81\xa4type\xa2\xff\xff",
        snapshots.encode(snapshots.PrefixSnapshot("0-0", 1, b"", 0, b"")),
    ],
)
async def test_what_is_no_snapshot_is_not_continued(follower, stored_form):
    following = follower()

    assert not following.feed.restore(stored_form)
    assert following.feed.blocks == 0


async def test_others_have_their_turns_while_much_is_learnt(engine, follower):
    publisher = engine()
    for at in range(200):
        publisher.publish(
            stored([at * 64 + n for n in range(64)], [at * 64 * BLOCK + n for n in range(64 * BLOCK)])
        )

    turns = 0
    async with follower().running() as following:
        while following.feed.counts.batches < 200:
            await asyncio.sleep(0)
            turns += 1 if following.feed.counts.batches else 0
        await following.until(lambda: len(following.held) == 200 * 64)
    assert turns > 30


async def test_an_engine_may_publish_later(engine, follower, caplog):
    caplog.set_level(logging.INFO)
    async with follower().running() as following:
        await following.until(lambda: "--kv-events-config" in caplog.text)
        publisher = engine()
        publisher.publish(stored([1, 2, 3], PROMPT))
        await following.holds(own_chain(PROMPT))
    assert len([record for record in caplog.records if "--kv-events-config" in record.message]) == 1


async def test_a_configured_address_serves_where_the_engine_tells_none(publish, follower):
    publisher = publish()
    publisher.publish(stored([1, 2, 3], PROMPT))
    configured = KvEvents(publisher.endpoint, publisher.replay_endpoint)

    async with follower(configured=configured).running() as following:
        await following.holds(own_chain(PROMPT))


async def test_off_is_quiet(follower):
    async with follower(configured="off").running() as following:
        await asyncio.sleep(0.05)
        assert following.feed.source is None


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_lost_the_engines_cache_is_known_in_the_end(engine, follower, seed):
    rng = random.Random(seed)
    publisher, pool = engine(), Pool(16, boot=0)
    async with follower().running() as following:
        for step in range(150):
            match rng.random():
                case chance if chance < 0.6:
                    tail = [rng.randrange(2) for _ in range(rng.randrange(6 * BLOCK))]
                    told = pool.start([7] * BLOCK + tail, rng.choice(["", "lora"]), rng.choice(["", "salt"]))
                    publisher.publish(*told, lost=rng.random() < 0.2)
                case chance if chance < 0.95:
                    pool.finish(rng.randrange(9))
                case chance if chance < 0.98:
                    publisher.publish(*pool.reset(), lost=rng.random() < 0.2)
                case _:
                    publisher.close()
                    publisher, pool = engine(**publisher.ports), Pool(16, boot=step)
            if rng.random() < 0.1:
                await asyncio.sleep(0.01)
        publisher.publish()
        await heard(following, publisher)
        await following.holds(pool.truth)
