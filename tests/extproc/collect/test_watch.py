import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from extproc.collect import connection
from extproc.collect.counters import Counters
from extproc.collect.observer import Observer
from extproc.collect.watch import Rhythm, Watch
from extproc.state.records import Tls

CERTIFICATES = Path(__file__).parents[2] / "controller" / "xds" / "tls"
NAME = "process_start_time_seconds"


class Statements:
    def __init__(self):
        self.heard = []

    def due(self, observer):
        self.heard += observer.statements()


class Feeds:
    """Follows by waiting; knows what is followed at the moment and what ever was."""

    def __init__(self):
        self.now = []
        self.ever = []

    def followed(self, endpoint):
        return endpoint in [key for key, _ in self.now]

    async def follow(self, site, endpoint, life, connection):
        one = (endpoint.key, life)
        self.ever.append(one)
        self.now.append(one)
        try:
            await asyncio.Event().wait()
        finally:
            self.now.remove(one)


@pytest.fixture
def statements():
    return Statements()


@pytest.fixture
def feeds():
    return Feeds()


@pytest.fixture
def watching(statements, feeds):
    @asynccontextmanager
    async def watching(site, at_once=8):
        clock = asyncio.get_running_loop().time
        observer = Observer(site, feeds.followed, clock, clock)
        rhythm = Rhythm(0.02, asyncio.Semaphore(at_once), clock)
        watch = Watch(observer, rhythm, statements, feeds, Counters())
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(watch.run())
            try:
                yield watch
            finally:
                task.cancel()

    return watching


async def test_a_pod_is_looked_at_again_and_again(pod, site_of, watching, statements, until):
    async with watching(site_of(pod.address)):
        await until(lambda: pod.asked.count("/metrics") >= 3)

    assert all(one.failing is None for one in statements.heard)


async def test_every_failure_is_stated_with_the_last_values(pod, site_of, watching, statements, until):
    async with watching(site_of(pod.address)):
        await until(lambda: statements.heard)
        pod.answers["/metrics"] = 503
        await until(lambda: [one.failing for one in statements.heard[-2:]] == ["/metrics answers 503"] * 2)

    assert statements.heard[-1].running == 0


async def test_each_rank_is_followed_in_its_life(start_pod, site_of, watching, feeds, until, capture):
    pod = await start_pod()
    pod.answers["/metrics"] = capture("dp2")
    async with watching(site_of(pod.address, ranks=2)) as watch:
        await until(lambda: len(feeds.now) == 2)
        assert dict(feeds.now) == watch.observer.lives()

        first = list(feeds.now)
        pod.answers["/metrics"] = capture("dp2").replace(f"{NAME} 1.", f"{NAME} 2.")
        await until(lambda: len(feeds.now) == 2 and not set(first) & set(feeds.now))
        assert dict(feeds.now) == watch.observer.lives()

    assert feeds.now == []


async def test_a_pod_that_fails_is_followed_on(pod, site_of, watching, statements, feeds, until):
    async with watching(site_of(pod.address)):
        await until(lambda: feeds.now)
        pod.answers["/metrics"] = 503
        await until(lambda: statements.heard[-1].failing)
        assert feeds.now
    assert len(feeds.ever) == 1


async def test_a_hanging_pod_ends_the_look_and_not_the_watch(
    pod, site_of, watching, statements, until, monkeypatch
):
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.05)
    pod.delay_s = 0.2
    async with watching(site_of(pod.address)):
        await until(lambda: statements.heard)
        assert "did not answer within" in statements.heard[-1].failing
        pod.delay_s = 0.0
        await until(lambda: statements.heard[-1].failing is None)


async def test_a_ca_file_is_tried_again(pod, site_of, watching, statements, until, tmp_path):
    site = site_of(pod.address, tls=Tls("engine.test", str(tmp_path / "ca.pem"), verify=False))
    async with watching(site):
        await until(lambda: len(statements.heard) > 1)
        assert "its CA file" in statements.heard[-1].failing
        (tmp_path / "ca.pem").write_bytes((CERTIFICATES / "ca.pem").read_bytes())
        await until(lambda: "/metrics: " in statements.heard[-1].failing)


async def test_only_so_many_pods_are_looked_at_at_once(pod, site_of, watching, statements):
    async with watching(site_of(pod.address), at_once=0):
        await asyncio.sleep(0.1)

    assert pod.asked == []


def test_pods_are_spread_over_the_interval_and_keep_their_places(clock):
    rhythm = Rhythm(1.0, None, clock)
    pods = [f"pod/default/{at}" for at in range(200)]
    places = [(clock.now + rhythm.pause_s(pod)) % 1.0 for pod in pods]
    clock.now += 0.7

    assert all(0 < rhythm.pause_s(pod) <= 1.0 for pod in pods)
    assert [(clock.now + rhythm.pause_s(pod)) % 1.0 for pod in pods] == pytest.approx(places)
    assert [len([p for p in places if at <= p * 4 < at + 1]) > 30 for at in range(4)] == [True] * 4
