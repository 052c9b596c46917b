"""The composition root of a collector: everything is built here once and passed by argument."""

import asyncio
import secrets
import socket
import time
from contextlib import closing
from typing import Never

from extproc.collect.admin import Admin
from extproc.collect.changes import Changes
from extproc.collect.condition import Condition
from extproc.collect.counters import Counters, Readings
from extproc.collect.feeds import Feeds
from extproc.collect.kv.sockets import Sockets
from extproc.collect.observer import Observer
from extproc.collect.ownership import Ownership
from extproc.collect.prefixes import Prefixes
from extproc.collect.settings import Settings
from extproc.collect.sites import Site
from extproc.collect.snapshots import SnapshotWriter
from extproc.collect.statements import Statements
from extproc.collect.watch import Rhythm, Watch
from extproc.collect.watches import Sites, Watches
from extproc.http_server import listen
from extproc.secret import Secret
from extproc.state.replica import Replica
from extproc.state.store import Store
from extproc.supervise import stop_on_signals

_AT_ONCE = 64
"""Pods that are looked at concurrently."""


async def run(settings: Settings) -> None:
    """Collect until SIGTERM or SIGINT; then give up the leases."""
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    async with Store.connect(settings.redis_url, settings.group) as store:
        await serve(settings, store, stop)


async def serve(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """Run all parts of a collector on an open store until `stop` is set."""
    with closing(Sockets()) as sockets:
        async with asyncio.TaskGroup() as tasks:
            collecting = tasks.create_task(_collect(settings, store, sockets))
            await stop.wait()
            collecting.cancel()


async def _collect(settings: Settings, store: Store, sockets: Sockets) -> None:
    member = f"{socket.gethostname()}/collector/{secrets.token_hex(4)}"
    replica = Replica(store, time.monotonic)
    secret = Secret(store)
    counters = Counters()
    rhythm = Rhythm(settings.interval_s, asyncio.Semaphore(_AT_ONCE), time.monotonic)
    sites = Sites(lambda: replica.snapshot)
    async with asyncio.TaskGroup() as tasks:

        def watch(site: Site) -> Watch:
            observer = Observer(site, feeds.followed, time.monotonic, time.time)
            return Watch(observer, rhythm, statements, feeds, counters)

        watches = Watches(sites, watch, tasks)
        ownership = Ownership(store.leases, member, sites, watches.adjust, time.monotonic)
        statements = Statements(store.streams, ownership)
        changes = Changes(store.streams, member, ownership)
        feeds = Feeds(store.snapshots, changes, sockets, secret.known, time.time)
        prefixes = Prefixes(store, watches.capacities, lambda: writer.hurry())
        writer = SnapshotWriter(store, ownership, prefixes, feeds)
        condition = Condition(ownership, watches, feeds, prefixes, changes, writer)
        counters.registry.register(Readings(condition.readings))
        admin = Admin(lambda: bool(ownership.members), condition.state, counters)
        for loop in (replica, secret, statements, changes, prefixes, writer):
            tasks.create_task(loop.run())
        tasks.create_task(_own(ownership, replica))
        tasks.create_task(listen(admin.app(), settings.admin))


async def _own(ownership: Ownership, replica: Replica) -> Never:
    """A collector that knows no pods yet must not be given any."""
    await replica.complete()
    await ownership.run()
