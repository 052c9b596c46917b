import asyncio
from contextlib import asynccontextmanager

import msgspec

from extproc.cache.capacity import capacity_bytes
from extproc.collect.metrics import Exposition, Observation
from extproc.collect.observer import Observer
from extproc.collect.scrape import Sight
from extproc.collect.watches import Sites, Watches
from extproc.state.records import ModelServer
from extproc.testing import a_pod, a_route, a_rule, a_server, a_snapshot


class Watch:
    """Counts how often it was begun and ended."""

    def __init__(self, site, log, clock):
        self.observer = Observer(site, lambda _: False, clock, clock)
        self._log = log

    async def run(self):
        self._log.append(("begin", self.observer.site.pod))
        try:
            await asyncio.Event().wait()
        finally:
            self._log.append(("end", self.observer.site.pod))


@asynccontextmanager
async def watching(sites, clock):
    log = []
    async with asyncio.TaskGroup() as tasks:
        watches = Watches(sites, lambda site: Watch(site, log, clock), tasks)
        watches.log = log
        yield watches
        watches.adjust(())


def test_sites_are_worked_out_once_per_snapshot():
    snapshots = [a_snapshot(a_route("r", a_rule("s"), model="m"), a_server("s"), a_pod("a", "s"))]
    sites = Sites(lambda: snapshots[-1])

    assert list(sites()) == ["pod/default/a"]
    assert sites() is sites()
    snapshots.append(a_snapshot())
    assert sites() == {}


async def test_exactly_what_is_held_is_watched(site_of, clock):
    sites = {name: site_of("10.0.0.1:8000", name) for name in "abc"}
    async with watching(lambda: sites, clock) as watches:
        watches.adjust({"a", "b", "unknown"})
        await asyncio.sleep(0)
        assert (
            watches.log == [("begin", "pod/default/a"), ("begin", "pod/default/b")] or len(watches.log) == 2
        )
        watches.adjust({"b", "c"})
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert {one.site.pod for one in watches.observers} == {"pod/default/b", "pod/default/c"}
        assert ("end", "pod/default/a") in watches.log
        assert ("end", "pod/default/b") not in watches.log


async def test_a_pod_that_is_reached_in_another_way_is_begun_anew(site_of, clock):
    sites = {"a": site_of("10.0.0.1:8000")}
    async with watching(lambda: sites, clock) as watches:
        watches.adjust({"a"})
        (before,) = watches.observers
        watches.adjust({"a"})
        assert watches.observers == [before]

        sites["a"] = site_of("10.0.0.1:9000")
        watches.adjust({"a"})

        (after,) = watches.observers
        assert after.site.address == "10.0.0.1:9000"


async def test_a_change_that_does_not_concern_the_pod_does_not_interrupt_it(clock):
    server = ModelServer("default", "s", "vLLM", 8000)
    records = [a_route("r", a_rule("s"), model="m"), server, a_pod("a", "s")]
    snapshots = [a_snapshot(*records)]
    sites = Sites(lambda: snapshots[-1])
    async with watching(sites, clock) as watches:
        watches.adjust(sites())
        (before,) = watches.observers
        snapshots.append(a_snapshot(*records, a_pod("b", "s", ip="10.0.0.2")))
        watches.adjust(sites())
        assert before in watches.observers

        snapshots.append(a_snapshot(records[0], msgspec.structs.replace(server, ranks=2), records[2]))
        watches.adjust(sites())
        assert before not in watches.observers


async def test_lives_are_told_with_what_they_can_hold(site_of, clock):
    sites = {"a": site_of("10.0.0.1:8000", ranks=2)}
    async with watching(lambda: sites, clock) as watches:
        watches.adjust({"a"})
        (observer,) = watches.observers
        assert watches.capacities() == {}

        ranks = {0: Observation(capacity_tokens=1000), 1: Observation()}
        observer.saw(Sight(Exposition(1.0, ranks, frozenset()), None, False))

        lives = observer.lives()
        assert watches.capacities() == {
            lives["pod/default/a#0"]: capacity_bytes(1000),
            lives["pod/default/a#1"]: capacity_bytes(None),
        }
