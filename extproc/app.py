"""The composition root of one worker: everything is built here once and passed by argument."""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Coroutine
from random import Random

from aiohttp import web

from extproc.admin import Admin
from extproc.decide import Decider
from extproc.explain import Journal
from extproc.metrics import Gauges, Metrics
from extproc.reservations import Reservations
from extproc.server import AccessLogSink, ExtProc, grpc_server
from extproc.settings import Settings
from extproc.share import Share
from extproc.state.replica import Replica
from extproc.state.store import Store
from extproc.supervise import Address, stop_on_signals
from extproc.wire import Encoder

log = logging.getLogger("kvoy.extproc")

_SWEEP_S = 1.0
"""How often reservations that no log entry will release are looked for."""


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then let decisions in progress finish and give up the lease."""
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    store = Store.connect(settings.redis_url, settings.group)
    try:
        await serve(settings, store, stop)
    finally:
        await store.close()


async def serve(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """Run all parts of a worker on an open store until `stop` is set."""
    instance = f"{socket.gethostname()}/{settings.name}/{secrets.token_hex(4)}"
    replica = Replica(store, time.monotonic)
    reservations = Reservations(time.monotonic)
    share = Share(store, reservations, instance, time.monotonic)
    metrics = Metrics()
    metrics.registry.register(Gauges(lambda: _condition(replica), reservations.counts))
    journal = Journal(settings.name)
    decider = Decider(lambda: replica.snapshot, reservations, journal, Random())
    extproc = ExtProc(
        decider, Encoder(settings.name, instance), metrics, settings.body_limit, time.perf_counter
    )
    sink = AccessLogSink(reservations, metrics, instance, time.monotonic)
    admin = Admin(
        lambda: replica.ready and not stop.is_set(),
        lambda: replica.snapshot,
        reservations,
        journal,
        metrics,
    )
    async with asyncio.TaskGroup() as tasks:
        loops = [
            tasks.create_task(replica.run()),
            tasks.create_task(share.run()),
            tasks.create_task(_sweep(sink)),
            tasks.create_task(_admin(admin, settings.admin)),
        ]
        await _answer(extproc, sink, settings, replica, stop)
        for task in loops:
            task.cancel()


async def _answer(
    extproc: ExtProc,
    sink: AccessLogSink,
    settings: Settings,
    replica: Replica,
    stop: asyncio.Event,
) -> None:
    """Listen from the first complete configuration on: a worker that knows nothing must not be asked."""
    if not await _first(replica.complete(), unless=stop):
        return
    server = grpc_server(extproc, sink, settings.socket)
    await server.start()
    log.info("serving on %s from generation %d", settings.socket, replica.snapshot.generation)
    await stop.wait()
    sink.close()
    await server.stop(settings.drain_s)


async def _first(wanted: Coroutine[None, None, None], *, unless: asyncio.Event) -> bool:
    """Wait for `wanted`; False when the event comes before it."""
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(wanted)
        stopping = tasks.create_task(unless.wait())
        await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
        done = waiting.done()
        waiting.cancel()
        stopping.cancel()
    return done


async def _admin(admin: Admin, address: str) -> None:
    where = Address.parse(address)
    runner = web.AppRunner(admin.app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, where.host, where.port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _sweep(sink: AccessLogSink) -> None:
    while True:
        await asyncio.sleep(_SWEEP_S)
        sink.sweep()


def _condition(replica: Replica) -> dict[str, float]:
    return {
        "kvoy_ready": float(replica.ready),
        "kvoy_state_connected": float(replica.connected),
        "kvoy_state_age_seconds": replica.stale_s(),
        "kvoy_config_generation": float(replica.snapshot.generation),
        "kvoy_state_reloads": float(replica.reloads),
        "kvoy_state_gaps": float(replica.gaps),
    }
