import asyncio
import logging
import time
from contextlib import asynccontextmanager, suppress
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.publish import Meeting, Publisher, meeting
from extproc.state import keys, records
from extproc.state.records import ModelRoute, ModelServer, Pod, Publication
from extproc.state.store import Head, Store, StoreCorrupt, StoreError

DEADLINE_S = 20


def keyed(*each):
    return {record.key: record for record in each}


def server(name, port=8000):
    return ModelServer("ns", name, "vLLM", port)


def pod(name, *servers, ip="10.0.0.1", port=None):
    return Pod("ns", name, ip, servers, port)


ONE = keyed(server("a"), pod("p", "a"))
TWO = keyed(server("a"), pod("p", "a"), pod("q", "a", ip="10.0.0.2"))
NONE = keyed(server("b"))


class Gateway:
    """Takes offers as Envoy's side does, and notes what the store held when each was accepted."""

    def __init__(self, store):
        self.store = store
        self.offers = []
        self.stored_at_acceptance = []
        self.accepts = True
        self.refused = False

    def offer(self, resources):
        self.offers.append(resources)

    async def accepted(self, timeout_s):
        with suppress(StoreCorrupt):
            stored = await self.store.configuration.load()
            self.stored_at_acceptance.append(None if stored is None else stored.records)
        return self.accepts

    async def until_offered(self, wanted):
        await until(lambda: self.offers and self.offers[-1] == wanted)


async def until(met):
    deadline = time.monotonic() + DEADLINE_S
    while not (found := met()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return found


async def stored(store, wanted):
    """What is stored, once its records are as wanted."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = await store.configuration.load()
        if found is not None and found.records == wanted:
            return found
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@asynccontextmanager
async def publishing(store, gateway, *, name="epoch", linger_s=0.3):
    epochs = (f"{name}-{number}" for number in count())
    publisher = Publisher(store, gateway, dict, "g", time.monotonic, lambda: next(epochs), linger_s=linger_s)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(publisher.run())
        yield publisher
        task.cancel()


@pytest.fixture
def gateway(store):
    return Gateway(store)


async def test_the_first_configuration_begins_an_epoch(store, gateway):
    async with publishing(store, gateway) as publisher:
        assert publisher.generation == 0
        publisher.apply(ONE)
        found = await stored(store, ONE)
        await until(lambda: publisher.generation == 1)

    assert (found.epoch, found.generation) == ("epoch-0", 1)
    assert gateway.offers == [ONE]


async def test_an_edit_is_published_as_its_difference(store, gateway):
    async with publishing(store, gateway) as publisher:
        publisher.apply(ONE)
        await stored(store, ONE)
        publisher.apply(TWO)
        await stored(store, TWO)
        entries = await store.configuration.tail("0-0", 0)

    assert [publication.generation for _, publication in entries] == [1, 2]
    assert entries[1][1] == Publication("epoch-0", 2, (records.Put(TWO["pod/ns/q"]),))


async def test_an_empty_configuration_is_published_so_that_workers_know_it(store, gateway):
    async with publishing(store, gateway) as publisher:
        publisher.apply({})
        assert (await stored(store, {})).generation == 1


async def test_envoy_accepts_before_workers_hear_of_it(store, gateway):
    async with publishing(store, gateway) as publisher:
        publisher.apply(ONE)
        await stored(store, ONE)
        publisher.apply(TWO)
        await stored(store, TWO)

    assert gateway.stored_at_acceptance == [None, ONE]
    assert gateway.offers[1] == TWO


async def test_what_goes_away_lingers_at_envoy(store, gateway):
    async with publishing(store, gateway) as publisher:
        publisher.apply(ONE)
        await stored(store, ONE)
        publisher.apply(NONE)
        await stored(store, NONE)
        await gateway.until_offered(NONE)

    kept = {"server/ns/a": server("a"), "pod/ns/p@server/ns/a/10.0.0.1:8000": pod("p", "a", port=8000)}
    assert gateway.offers == [ONE, NONE | kept, NONE]
    assert gateway.stored_at_acceptance == [None, ONE]


async def test_what_comes_back_within_that_time_stays(store, gateway):
    async with publishing(store, gateway, linger_s=1.0) as publisher:
        for edit in (ONE, {}, ONE):
            publisher.apply(edit)
            await stored(store, edit)
        await gateway.until_offered(ONE)

    assert all(offer.items() >= {"server/ns/a": server("a")}.items() for offer in gateway.offers)


async def test_what_two_edits_take_away_lingers_together(store, gateway):
    async with publishing(store, gateway, linger_s=30) as publisher:
        for edit in (TWO, ONE, NONE):
            publisher.apply(edit)
            await stored(store, edit)

    pods = {record.ip for record in gateway.offers[-1].values() if isinstance(record, Pod)}
    assert pods == {"10.0.0.1", "10.0.0.2"}


async def test_an_envoy_that_does_not_accept_delays_but_does_not_stop(store, gateway, caplog):
    gateway.accepts = False
    async with publishing(store, gateway) as publisher:
        publisher.apply(ONE)
        await stored(store, ONE)

    assert "Envoy has not taken the new configuration within 0.5 s: publishing it anyway" in caplog.text


async def test_the_newest_of_several_edits_wins(store, gateway):
    async with publishing(store, gateway) as publisher:
        publisher.apply(ONE)
        publisher.apply(NONE)
        publisher.apply(TWO)
        found = await stored(store, TWO)

    assert found.generation == 1


async def test_an_edit_while_envoy_is_asked_comes_next(store, gateway):
    async with publishing(store, gateway) as publisher:
        ask = gateway.accepted

        async def edit_meanwhile(timeout_s):
            publisher.apply(TWO)
            return await ask(timeout_s)

        gateway.accepted = edit_meanwhile
        publisher.apply(ONE)
        found = await stored(store, TWO)
        entries = await store.configuration.tail("0-0", 0)

    assert found.generation == 2
    assert len(entries[0][1].changes) == len(ONE)


async def test_one_line_per_generation(store, gateway, caplog):
    caplog.set_level(logging.INFO)
    async with publishing(store, gateway) as publisher:
        publisher.apply(ONE)
        await stored(store, ONE)
        publisher.apply(keyed(server("a", 9000), ModelRoute("ns", "chat", ())))
        await until(lambda: publisher.generation == 2)

    assert caplog.messages == [
        "generation 1: +Pod ns/p, +ModelServer ns/a",
        "generation 2: +ModelRoute ns/chat, ~ModelServer ns/a, -Pod ns/p",
    ]


class TestRestart:
    async def test_what_is_stored_already_is_not_published_again(self, store, open_store, gateway):
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            before = await stored(store, ONE)

        again = open_store()
        async with publishing(again, Gateway(again), name="later") as publisher:
            publisher.apply(dict(ONE))
            await until(lambda: publisher.generation == 1)
            publisher.apply(TWO)
            after = await stored(again, TWO)

        assert (after.epoch, after.generation) == (before.epoch, 2)

    async def test_only_the_difference_is_published(self, store, open_store, gateway):
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await stored(store, ONE)

        again = open_store()
        second = Gateway(again)
        async with publishing(again, second, name="later") as publisher:
            publisher.apply(NONE)
            await stored(again, NONE)
            entries = await again.configuration.tail("0-0", 0)

        assert [publication.epoch for _, publication in entries] == ["epoch-0", "epoch-0"]
        assert second.offers[0].keys() > NONE.keys()

    async def test_without_valid_manifests_the_stored_configuration_is_served(
        self, store, open_store, gateway
    ):
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await stored(store, ONE)

        again = open_store()
        second = Gateway(again)
        async with publishing(again, second) as publisher:
            await second.until_offered(ONE)
            assert publisher.generation == 1
            assert (await again.configuration.head()).generation == 1

    async def test_without_anything_nothing_is_offered(self, store, gateway, caplog):
        async with publishing(store, gateway):
            await asyncio.sleep(0.6)

        assert gateway.offers == []
        assert await store.configuration.head() is None
        assert caplog.messages == []


class TestStore:
    async def test_emptied_it_gets_everything_again(self, store, raw, gateway, caplog):
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await stored(store, ONE)
            publisher.apply(TWO)
            await stored(store, TWO)
            await raw.flushall()
            found = await stored(store, TWO)

        assert (found.epoch, found.generation) == ("epoch-1", 3)
        assert "the store has lost the configuration: publishing all of it again" in caplog.text

    async def test_emptied_before_valid_manifests_it_gets_back_what_it_held(
        self, store, raw, open_store, gateway
    ):
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await stored(store, ONE)

        again = open_store()
        second = Gateway(again)
        async with publishing(again, second, name="later"):
            await second.until_offered(ONE)
            await raw.flushall()
            assert (await stored(again, ONE)).epoch == "later-0"

    async def test_set_back_it_gets_everything_under_a_new_epoch(self, store, raw, gateway, caplog):
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await stored(store, ONE)
            backup = await raw.dump(keys.config("g"))
            publisher.apply(TWO)
            await stored(store, TWO)
            await raw.restore(keys.config("g"), 0, backup, replace=True)
            found = await stored(store, TWO)

        assert (found.epoch, found.generation) == ("epoch-1", 3)
        assert "the store went back to generation 1" in caplog.text

    async def test_corrupt_it_is_replaced(self, store, raw, gateway, caplog):
        await raw.hset(keys.config("g"), mapping={"epoch": "old", "generation": 7, "pod/ns/p": b"\xc1"})
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            found = await stored_when_readable(store, ONE)

        assert (found.epoch, found.generation) == ("epoch-0", 8)
        assert "publishing a whole configuration in its place" in caplog.text

    async def test_broken_beyond_repair_it_says_which_key_to_delete(self, store, raw, gateway, caplog):
        await raw.hset(keys.config("g"), mapping={"epoch": "old", "generation": "seven"})
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await gateway.until_offered(ONE)
            await until(lambda: "delete kvoy1:{g}:config to publish anew" in caplog.text)
            await raw.delete(keys.config("g"))
            assert (await stored(store, ONE)).generation == 1

    async def test_away_envoy_is_served_and_the_newest_is_published_on_return(self, own_valkey, caplog):
        caplog.set_level(logging.INFO)
        store = Store.connect(own_valkey.url, "g")
        gateway = Gateway(store)
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await stored(store, ONE)
            own_valkey.kill()
            publisher.apply(NONE)
            await until(lambda: gateway.offers[-1].keys() >= NONE.keys())
            publisher.apply(TWO)
            await until(lambda: gateway.offers[-1].keys() >= TWO.keys())
            await asyncio.sleep(0.5)
            assert publisher.generation == 1
            own_valkey.start()
            found = await stored(store, TWO)
            await until(lambda: "the store is back" in caplog.text)
        await store.close()

        assert found.generation == 2
        assert caplog.text.count("Envoy is served all the same") == 1

    async def test_away_from_the_start(self, own_valkey):
        own_valkey.kill()
        store = Store.connect(own_valkey.url, "g")
        gateway = Gateway(store)
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await gateway.until_offered(ONE)
            own_valkey.start()
            await stored_when_readable(store, ONE)
        await store.close()

    async def test_a_publication_whose_outcome_is_unknown_is_recognised(self, store, gateway, caplog):
        """The store applied it, the answer was lost, and the manifests changed since."""
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await stored(store, ONE)
            await until(lambda: publisher.generation == 1)
            publish = store.configuration.publish

            async def lose_the_answer(publication):
                store.configuration.publish = publish
                await publish(publication)
                publisher.apply(NONE)
                return False

            store.configuration.publish = lose_the_answer
            publisher.apply(TWO)
            found = await stored(store, NONE)

        assert (found.epoch, found.generation) == ("epoch-0", 3)
        assert "another controller" not in caplog.text


async def stored_when_readable(store, wanted):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return await stored(store, wanted)
        except StoreError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


class TestTwoControllers:
    async def test_of_one_opinion_live_in_peace(self, open_store, caplog):
        one, two = open_store(), open_store()
        async with publishing(one, Gateway(one), name="one") as first:
            first.apply(ONE)
            await stored(one, ONE)
            async with publishing(two, Gateway(two), name="two") as second:
                second.apply(ONE)
                await until(lambda: second.generation == 1)
                first.apply(TWO)
                second.apply(TWO)
                await stored(one, TWO)
                await until(lambda: first.generation == second.generation == 2)

        assert "another controller" not in caplog.text

    async def test_of_two_opinions_the_last_edit_stands_and_the_other_says_so(self, open_store, caplog):
        one, two = open_store(), open_store()
        async with publishing(one, Gateway(one), name="one") as first:
            first.apply(ONE)
            await stored(one, ONE)
            await until(lambda: first.generation == 1)
            async with publishing(two, Gateway(two), name="two") as second:
                second.apply(NONE)
                await stored(two, NONE)
                await until(lambda: first.generation == 2)
                await asyncio.sleep(1.2)
                assert (await one.configuration.head()) == Head("one-0", 2)
                assert (
                    "another controller publishes into group 'g'; its generation 2 is in force" in caplog.text
                )

                first.apply(TWO)
                await stored(one, TWO)
                await until(lambda: second.generation == 3)
                await asyncio.sleep(1.2)
                assert (await one.configuration.head()) == Head("one-0", 3)

    async def test_a_foreign_configuration_is_replaced_once_but_not_fought_over(
        self, store, open_store, gateway, caplog
    ):
        rival = open_store()
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await stored(store, ONE)
            await until(lambda: publisher.generation == 1)
            assert await rival.configuration.publish(
                Publication("rival-0", 2, (records.Put(server("r")),), whole=True)
            )
            found = await stored(store, ONE)
            assert (found.epoch, found.generation) == ("epoch-1", 3)
            assert "another controller has published generation 2 into group 'g': replacing it" in caplog.text

            await until(lambda: publisher.generation == 3)
            assert await rival.configuration.publish(
                Publication("rival-1", 4, (records.Put(server("r")),), whole=True)
            )
            await until(lambda: publisher.generation == 4)
            await asyncio.sleep(1.2)

        assert await rival.configuration.head() == Head("rival-1", 4)

    async def test_a_rival_s_endpoints_stay_at_envoy_while_workers_use_them(self, store, open_store, gateway):
        rival = open_store()
        theirs = keyed(server("r"), pod("x", "r", ip="10.9.9.9"))
        async with publishing(store, gateway) as publisher:
            publisher.apply(ONE)
            await stored(store, ONE)
            await until(lambda: publisher.generation == 1)
            changes = tuple(records.Put(record) for record in theirs.values())
            assert await rival.configuration.publish(Publication("epoch-0", 2, changes))
            await until(lambda: "server/ns/r" in gateway.offers[-1])

        assert gateway.offers[-1].keys() > ONE.keys()


heads = st.builds(Head, st.sampled_from("xy"), st.integers(1, 4))


@given(st.none() | heads, st.none() | heads, heads)
def test_every_other_configuration_found_has_one_meaning(known, attempt, found):
    seen = meeting(known, attempt, found)

    assert (seen is Meeting.OURS) == (found == attempt)
    if seen is Meeting.SET_BACK:
        assert found.epoch == known.epoch
        assert found.generation < known.generation
    if seen is Meeting.CONTINUED:
        assert found.epoch == known.epoch


async def test_what_envoy_refuses_is_not_published(store, gateway, caplog):
    async with publishing(store, gateway) as publisher:
        publisher.apply(ONE)
        await stored(store, ONE)
        gateway.accepts, gateway.refused = False, True
        publisher.apply(TWO)
        await until(lambda: "Envoy refuses the new configuration: generation 1 stays in force" in caplog.text)
        await gateway.until_offered(ONE)
        assert (await store.configuration.load()).records == ONE
        gateway.accepts, gateway.refused = True, False
        publisher.apply(NONE)
        await stored(store, NONE)

    assert caplog.text.count("Envoy refuses") == 1


async def test_a_lost_store_gets_the_last_good_configuration_back_not_the_refused(
    store, gateway, raw, caplog
):
    async with publishing(store, gateway) as publisher:
        publisher.apply(ONE)
        await stored(store, ONE)
        gateway.accepts, gateway.refused = False, True
        publisher.apply(TWO)
        await until(lambda: "Envoy refuses" in caplog.text)
        await gateway.until_offered(ONE)
        gateway.accepts, gateway.refused = True, False
        await raw.flushall()
        await stored(store, ONE)
