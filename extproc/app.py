"""The composition root of one worker: everything is built here once and passed by argument."""

import asyncio
import gc
import logging
import secrets
import socket
import time
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from random import Random

import aiohttp

from extproc.accesslog import Outcome
from extproc.admin import Admin, Views
from extproc.cache.frames import Namespace
from extproc.cache.holdings import Holdings
from extproc.calibration import Calibration
from extproc.decide import Decider
from extproc.explain import Journal
from extproc.fleet import Fleet
from extproc.follow import Follow
from extproc.handoff.driver import Driver
from extproc.handoff.engines import Engines as PrefillEngines
from extproc.http_server import listen
from extproc.legs import Legs
from extproc.metrics import Gauges, Metrics
from extproc.reservations import Reservation, Reservations
from extproc.secret import Secret
from extproc.server import AccessLogSink, ExtProc, drain, grpc_server
from extproc.settings import Settings
from extproc.share import Share
from extproc.state.engines import Engines
from extproc.state.replica import Replica
from extproc.state.store import Store
from extproc.supervise import stop_on_signals
from extproc.teach import Teach
from extproc.tokens import Tokens
from extproc.turns import Turns
from extproc.wire import Encoder
from extproc.witness import Witness

log = logging.getLogger("kvoy.extproc")

_SWEEP_S = 1.0
"""How often reservations that no log entry will release are looked for."""
_PREPARE_S = 1.0
"""How often it is looked whether the configuration needs further tokenisers."""
_CATCH_UP_S = 2.0
"""Longest wait for what is cached where; without it a worker serves all the same."""


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then let decisions in progress finish and say farewell."""
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    async with Store.connect(settings.redis_url, settings.group) as store:
        await serve(settings, store, stop)


@dataclass(frozen=True, slots=True)
class _State:
    """What a worker knows, and the loops that keep it so."""

    replica: Replica
    secret: Secret
    reservations: Reservations
    engines: Engines
    holdings: Holdings
    fleet: Fleet
    share: Share
    follow: Follow
    teach: Teach

    @classmethod
    def of(cls, store: Store, instance: str) -> "_State":
        replica = Replica(store, time.monotonic)
        secret = Secret(store)
        reservations = Reservations(time.monotonic)
        engines = Engines(time.monotonic)
        holdings = Holdings()
        fleet = Fleet(reservations, engines, holdings, Calibration(), lambda: secret.value)
        return cls(
            replica,
            secret,
            reservations,
            engines,
            holdings,
            fleet,
            Share(store, reservations, instance, time.monotonic),
            Follow(store, holdings, reservations, engines, instance, time.monotonic),
            Teach(store, holdings, instance),
        )

    def loops(self) -> Iterable[Coroutine[None, None, None]]:
        return (part.run() for part in (self.replica, self.secret, self.share, self.teach))

    async def follow_engines(self) -> None:
        """Follow the streams from the first configuration on: its engines are what is to be known."""
        await self.replica.complete()
        await self.follow.run()

    async def complete(self) -> None:
        """Return once requests can be decided: with a configuration, and if possible with the index."""
        await self.replica.complete()
        await self.secret.known()
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                await self.follow.complete()
        except TimeoutError:
            log.warning("serving before it is known what is cached where")


async def serve(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """Run all parts of a worker on an open store until `stop` is set."""
    instance = f"{socket.gethostname()}/{settings.name}/{secrets.token_hex(4)}"
    state = _State.of(store, instance)
    metrics = Metrics()
    journal = Journal(settings.name, time.time)
    async with AsyncExitStack() as resources:
        http = await resources.enter_async_context(aiohttp.ClientSession())
        tokens = await resources.enter_async_context(
            Tokens(settings.tokenizers, http, time.monotonic, datetime.now)
        )
        turns = Turns(instance, state.reservations.peers, time.time)
        legs = Legs(state.fleet, metrics.computed)
        metrics.registry.register(Gauges(lambda: _condition(state, legs), state.reservations.counts))
        decider = Decider(state.fleet, legs, tokens, journal, Random(), turns.now)
        state.replica.watch(decider.adopt)
        engines = await resources.enter_async_context(PrefillEngines(time.monotonic))
        driver = await resources.enter_async_context(
            Driver(engines, legs, Witness(metrics, journal, legs), Random(), time.monotonic)
        )
        encoder = Encoder(settings.name, instance)
        extproc = ExtProc(decider, driver, encoder, metrics, settings.body_limit, time.perf_counter)

        def ended(outcome: Outcome) -> None:
            legs.ended(outcome.reservation.id)
            metrics.ended(outcome)
            journal.ended(outcome.reservation.request_id, outcome)
            state.fleet.ended(outcome)

        def expired(reservations: Sequence[Reservation]) -> None:
            metrics.expired(len(reservations))
            for reservation in reservations:
                legs.ended(reservation.id)

        sink = AccessLogSink(state.reservations, ended, expired, instance, time.monotonic)
        serving = asyncio.Event()
        admin = Admin(_views(state, decider, journal, metrics, serving))
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(loop) for loop in state.loops()]
            loops.append(tasks.create_task(state.follow_engines()))
            loops += [tasks.create_task(_sweep(sink)), tasks.create_task(listen(admin.app(), settings.admin))]
            loops.append(tasks.create_task(_prepare(tokens, decider, state.replica)))
            await _answer(extproc, driver, sink, settings, state, serving, stop)
            for task in loops:
                task.cancel()


def _views(
    state: _State, decider: Decider, journal: Journal, metrics: Metrics, serving: asyncio.Event
) -> Views:
    return Views(
        ready=serving.is_set,
        exposition=metrics.exposition,
        explain=journal.explain,
        preview=decider.preview,
        snapshot=lambda: state.replica.snapshot,
        own=state.reservations.counts,
        load=state.reservations.load,
        engines=state.engines.seen,
        entries=lambda: {each.name.lower(): state.holdings.entries(each) for each in Namespace},
        lag_s=lambda: state.follow.lag_s,
    )


async def _answer(
    extproc: ExtProc,
    driver: Driver,
    sink: AccessLogSink,
    settings: Settings,
    state: _State,
    serving: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    """Listen from the first complete configuration on: a worker that knows nothing must not be asked."""
    if not await _first(state.complete(), unless=stop):
        return
    server = grpc_server(extproc, sink, settings.socket)
    # What a worker begins with lives as long as it does: no collection has to look at it again.
    gc.collect()
    gc.freeze()
    await server.start()
    log.info("serving on %s from generation %d", settings.socket, state.replica.snapshot.generation)
    serving.set()
    await stop.wait()
    serving.clear()
    sink.close()
    await drain(server, driver, settings.drain_s)


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


async def _prepare(tokens: Tokens, decider: Decider, replica: Replica) -> None:
    """Read tokenisers before a request needs them: reading one holds up everything else."""
    await replica.complete()
    prepared: set[str] = set()
    while True:
        wanted = decider.tokenizers()
        await tokens.prepare(sorted(wanted - prepared))
        prepared = wanted
        await asyncio.sleep(_PREPARE_S)


async def _sweep(sink: AccessLogSink) -> None:
    while True:
        await asyncio.sleep(_SWEEP_S)
        sink.sweep()


def _condition(state: _State, legs: Legs) -> dict[str, float]:
    replica, follow = state.replica, state.follow
    return {
        "kvoy_ready": float(replica.ready),
        "kvoy_state_connected": float(replica.connected and follow.connected),
        "kvoy_state_age_seconds": max(replica.stale_s(), follow.stale_s()),
        "kvoy_state_lag_seconds": follow.lag_s,
        "kvoy_config_generation": float(replica.snapshot.generation),
        "kvoy_state_reloads": float(replica.reloads),
        "kvoy_state_gaps": float(replica.gaps),
        "kvoy_prefills_open": float(legs.open),
        "kvoy_cache_reloads": float(follow.reloads),
        "kvoy_cache_gaps": float(follow.gaps),
        "kvoy_cache_prefix_blocks": float(state.holdings.entries(Namespace.PREFIX)),
        "kvoy_cache_kv_blocks": float(state.holdings.entries(Namespace.KV)),
    }
