"""Watches one pod while it is ours: looks at it once per interval, follows its engines' KV events."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Never

import xxhash

from extproc.collect.connection import Connection, Unreachable, opened
from extproc.collect.counters import Counters
from extproc.collect.feeds import Feeds
from extproc.collect.metrics import Unreadable
from extproc.collect.observer import Observer
from extproc.collect.scrape import Scraper
from extproc.collect.statements import Statements


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When pods are looked at."""

    interval_s: float
    at_once: asyncio.Semaphore
    """Bounds how many are looked at concurrently."""
    clock: Callable[[], float]
    """Monotonic seconds."""

    def pause_s(self, pod: str) -> float:
        """Until the next look: pods are spread over the interval, and each keeps its place in it."""
        place = xxhash.xxh3_64_intdigest(pod.encode()) / 2**64 * self.interval_s
        return self.interval_s - (self.clock() - place) % self.interval_s


class Watch:
    """One pod; its loop is `run`."""

    def __init__(
        self, observer: Observer, rhythm: Rhythm, statements: Statements, feeds: Feeds, counters: Counters
    ) -> None:
        self.observer = observer
        self._site = observer.site
        self._rhythm = rhythm
        self._statements = statements
        self._feeds = feeds
        self._counters = counters
        self._following: dict[str, tuple[int, asyncio.Task[None]]] = {}

    async def run(self) -> Never:
        """Watch until cancelled, whatever the pod does."""
        while True:
            try:
                async with opened(self._site) as connection, asyncio.TaskGroup() as tasks:
                    await self._keep_looking(connection, tasks)
            except Unreachable as error:
                self._failed(error)
            await asyncio.sleep(self._rhythm.pause_s(self._site.pod))

    async def _keep_looking(self, connection: Connection, tasks: asyncio.TaskGroup) -> Never:
        scraper = Scraper(connection, self._rhythm.clock)
        while True:
            async with self._rhythm.at_once:
                await self._look(scraper)
            self._follow(connection, tasks)
            await asyncio.sleep(self._rhythm.pause_s(self._site.pod))

    async def _look(self, scraper: Scraper) -> None:
        before = self._rhythm.clock()
        try:
            sight = await scraper.look()
        except (Unreachable, Unreadable) as error:
            self._failed(error)
        else:
            self.observer.saw(sight)
            self._counters.looked(self._rhythm.clock() - before)
            self._statements.due(self.observer)

    def _failed(self, error: Exception) -> None:
        self.observer.failed(str(error))
        self._counters.failed()
        self._statements.due(self.observer)

    def _follow(self, connection: Connection, tasks: asyncio.TaskGroup) -> None:
        """One feed for each engine in the life that it is in now."""
        lives = self.observer.lives_with_one_cache()
        for key, (life, feed) in list(self._following.items()):
            if lives.get(key) != life:
                feed.cancel()
                del self._following[key]
        for endpoint in self._site.endpoints:
            if endpoint.key in lives and endpoint.key not in self._following:
                life = lives[endpoint.key]
                following = self._feeds.follow(self._site, endpoint, life, connection)
                self._following[endpoint.key] = life, tasks.create_task(following)
