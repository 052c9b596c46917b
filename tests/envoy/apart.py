"""What tests of prefill/decode speak: engines of two roles, a pair of them, both legs, what a client got."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, get_args
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp

from benchmarks.engine import EngineSettings, RunningEngine, running
from benchmarks.engine.faults import Fault
from benchmarks.engine.journal import Outcome, Received
from extproc.state.records import KV_PORTS, ConnectorName, Role
from tests.envoy.steering import conversation, ended, name, preview
from tests.envoy.world import (
    World,
    a_model_route,
    a_model_server,
    a_pod_manifest,
    a_world,
    free_port,
    to,
    until,
)

CONNECTORS: tuple[ConnectorName, ...] = get_args(ConnectorName)
GROUPS = ("a", "b")
"""Of each pool, with two engines of each role."""
SEATS: tuple[tuple[str, Role], ...] = tuple(
    (group, role) for group in GROUPS for role in get_args(Role) for _ in range(2)
)
"""Group and role of each engine of a pool."""
CHAT = "/v1/chat/completions"
PREFILLER = "x-prefiller-host-port"
LEASE_S = 300.0
"""How long simulated engines keep blocks for each other, or wait for them: until a test has the
time pass."""
PATIENCE_S = 60.0
"""Tests wait for conditions, and machines are busy."""
_FAST = {"prefill_tokens_per_s": 1e6, "inter_token_s": 0.002, "reply_tokens": 100_000}


class Seat:
    """A pod's place: its engine may die, and another one takes its address."""

    def __init__(self, group: str, role: Role, settings: EngineSettings) -> None:
        self.group = group
        self.role = role
        self.settings = settings
        self.stirred = True
        """What kvoy has observed of it may not hold any more."""
        self._life = AsyncExitStack()
        self._passed_s = 0.0

    async def open(self, **changed: Any) -> None:
        """Begin a life, with settings changed for the length of it."""
        self.stirred = True
        settings = replace(self.settings, **changed)
        self.engine: RunningEngine = await self._life.enter_async_context(running(settings, self._clock))

    def pass_time(self, seconds: float) -> None:
        """For this engine so much time has passed."""
        self._passed_s += seconds

    def _clock(self) -> float:
        return time.monotonic() + self._passed_s

    async def close(self) -> None:
        await self._life.aclose()

    async def revive(self, **changed: Any) -> None:
        """End the life, if it has not ended, and begin another one."""
        await self.close()
        await self.open(**changed)

    async def pause(self) -> None:
        """Compute nothing until `resume`."""
        self.stirred = True
        await self._told("pause")

    async def resume(self) -> None:
        """Compute again what waits."""
        await self._told("resume")

    async def _told(self, what: str) -> None:
        async with aiohttp.request("POST", f"{self.engine.url}/{what}") as response:
            assert response.status == 200

    async def die(self) -> None:
        """Die; nothing listens any more."""
        self.engine.die()
        await self.engine.death()

    @property
    def name(self) -> str:
        """Of the pod and of the engine."""
        return self.settings.name

    @property
    def at_rest(self) -> bool:
        """Dead, or without anything to compute, to wait for or to write."""
        engine = self.engine
        working = engine.running or engine.waiting or engine.prefills or engine.requests.count(Outcome.OPEN)
        return not (engine.alive and (working or engine.transfers_open or engine.transfers_awaited))

    @property
    def leases(self) -> int:
        """Prompts whose blocks it holds for other engines."""
        return self.engine.leases if self.engine.alive else 0

    def fault(self, *faults: Fault) -> None:
        """Put these faults in force instead of those before."""
        self.engine.set_faults(faults)


@dataclass(frozen=True, slots=True)
class Leg:
    """A request as an engine got it."""

    seat: Seat
    received: Received

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.received.body)
        return parsed

    @property
    def served(self) -> bool:
        """The engine has written a whole answer, and a good one."""
        return self.received.status == 200 and self.received.outcome is Outcome.FINISHED

    def __str__(self) -> str:
        told = self.received
        return f"{self.seat.name}: {told.outcome} {told.status}{' with a transfer' if self.transfer else ''}"

    @property
    def transfer(self) -> Any:
        """What it says of a transfer: parameters, a room, or a sidecar's address; else something false."""
        told = self.json
        room = {key: told[key] for key in told if key.startswith("bootstrap_")}
        return told.get("kv_transfer_params") or room or self.received.header(PREFILLER)


@dataclass(frozen=True, slots=True)
class Pool:
    """The engines of one ModelServer; it is called like its connector, as are its route and its model."""

    name: ConnectorName
    seats: Mapping[str, Seat]
    """By pod name."""

    def legs(self, part: str, role: Role | None = None) -> list[Leg]:
        """Requests whose body contains that text, engine by engine; of a role, if given."""
        needle = part.encode()
        return [
            Leg(seat, received)
            for seat in self.seats.values()
            for received in seat.engine.requests
            if role in (None, seat.role) and needle in received.body
        ]

    def group(self, group: str, role: Role) -> list[Seat]:
        """The seats of that group with that role."""
        return [seat for seat in self.seats.values() if (seat.group, seat.role) == (group, role)]

    def role(self, role: Role) -> list[Seat]:
        """The seats of both groups with that role."""
        return [seat for seat in self.seats.values() if seat.role == role]

    async def rest(self) -> None:
        """Wait until no engine has anything to do. What they hold for others then goes with its lease."""

        async def at_rest() -> bool:
            return all(seat.at_rest for seat in self.seats.values())

        await until(at_rest, within=PATIENCE_S)
        for seat in self.seats.values():
            seat.pass_time(LEASE_S)
        assert not any(seat.leases for seat in self.seats.values())

    async def whole(self, world: World) -> None:
        """Bring dead engines back, end faults, and wait until every worker knows all engines to be well."""
        for seat in self.seats.values():
            if not seat.engine.alive:
                await seat.revive()
            seat.fault()
        since = time.monotonic()
        stirred = [seat for seat in self.seats.values() if seat.stirred]

        async def known() -> bool:
            """By a look at them after the last of these changes."""
            passed_s = time.monotonic() - since
            told = [
                state["engines"].get(f"default/{seat.name}")
                for state in await world.states()
                for seat in stirred
            ]
            return len(told) == len(stirred) * len(world.stack.admins) and all(
                engine
                and engine["age_s"] < passed_s
                and not engine.get("failing")
                and not engine.get("asleep")
                for engine in told
            )

        await until(known, within=PATIENCE_S)
        for seat in stirred:
            seat.stirred = False


@dataclass(frozen=True, slots=True)
class Pair:
    """Two engines of one group, to which all workers send what is `about` the same."""

    about: str
    prefill: Seat
    decode: Seat


@dataclass(frozen=True, slots=True)
class Apart:
    """A running stack and its pools."""

    world: World
    pools: Mapping[ConnectorName, Pool]

    async def idle(self) -> None:
        """Wait until no worker counts a request or waits for a prompt."""

        async def nothing_open() -> bool:
            return await self.world.idle() and not await self.world.metric("kvoy_prefills_open")

        await until(nothing_open, within=PATIENCE_S)


@asynccontextmanager
async def apart(**further: list[dict[str, Any]]) -> AsyncIterator[Apart]:
    """A stack with a pool per connector, and `further` files."""
    async with AsyncExitStack() as resources:
        ports = iter(_ports(2 * len(CONNECTORS) * len(SEATS)))
        pools = {connector: _pool(connector, ports) for connector in CONNECTORS}
        for pool in pools.values():
            for seat in pool.seats.values():
                resources.push_async_callback(seat.close)
                await seat.open()
        pods = [_pod(seat, pool.name) for pool in pools.values() for seat in pool.seats.values()]
        routes = [a_model_route(connector, connector, to(connector)) for connector in CONNECTORS]
        servers = [disaggregated(connector, connector, **always(connector)) for connector in CONNECTORS]
        world = await resources.enter_async_context(
            a_world(servers=servers, pods=pods, routes=routes, **further)
        )
        async with asyncio.TaskGroup() as tasks:
            for pool in pools.values():
                tasks.create_task(pool.whole(world))
        yield Apart(world, pools)


def disaggregated(server: str, connector: ConnectorName, **annotations: str) -> dict[str, Any]:
    """A ModelServer over the pods of a pool: ``disaggregated("x", "nixl", prefill_timeout="1s")``."""
    group = {"groupKey": "group", "prefillLabels": {"role": "prefill"}, "decodeLabels": {"role": "decode"}}
    engine = {"inferenceEngine": "SGLang"} if connector == "sglang" else {"kvConnector": {"type": connector}}
    built: dict[str, Any] = a_model_server(
        server,
        model="sim",
        annotations={f"kvoy.io/{key.replace('_', '-')}": value for key, value in annotations.items()},
        workloadSelector={"matchLabels": {"app": connector}, "pdGroup": group},
        **engine,
    )
    return built


def always(connector: ConnectorName) -> dict[str, str]:
    """The annotation that has every prompt computed by a prefill pod; SGLang's need none."""
    return {} if connector == "sglang" else {"prefill_threshold": "0"}


def _pod(seat: Seat, app: ConnectorName) -> dict[str, Any]:
    pod = a_pod_manifest(seat.name, app, seat.settings.port)
    pod["metadata"]["labels"] |= {"role": seat.role, "group": seat.group}
    if app in KV_PORTS:
        pod["metadata"]["annotations"]["kvoy.io/kv-port"] = str(seat.settings.kv_port)
    return pod


def _pool(connector: ConnectorName, ports: Iterator[int]) -> Pool:
    kv_ports = [next(ports) for _ in SEATS]
    peers = tuple(f"127.0.0.1:{port}" for port in kv_ports)
    seats = []
    for at, (group, role) in enumerate(SEATS):
        called = f"{connector}-{group}-{role}-{at}"
        wiring = _wiring(connector, role, kv_ports[at], peers)
        settings = EngineSettings(name=called, model="sim", port=next(ports), **wiring, **_FAST)
        seats.append(Seat(group, role, settings))
    return Pool(connector, {seat.name: seat for seat in seats})


def _ports(count: int) -> set[int]:
    """Free ones; asked for together, one might be among them twice."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return ports


def _wiring(connector: ConnectorName, role: Role, kv_port: int, peers: tuple[str, ...]) -> dict[str, Any]:
    """Behind a sidecar the decode engine plays the proxy itself: it answers, and asks nobody."""
    if connector == "sidecar":
        return {}
    shared = {"kv_peers": peers} if connector in ("http", "lmcache") else {}
    waits = {"kv_lease_s": LEASE_S, "transfer_timeout_s": LEASE_S}
    return {"role": role, "connector": connector, "kv_port": kv_port, **shared, **waits}


@dataclass(frozen=True, slots=True)
class Question:
    """A chat request that its legs can be found by."""

    mark: str
    """Occurs in its body, and in no other's."""
    body: dict[str, Any]


def a_question(model: str, about: str | None = None, **fields: Any) -> Question:
    """Those `about` the same have all but the end of their prompt in common."""
    mark = uuid4().hex
    messages = conversation(about or uuid4().hex, mark, repeats=100)
    return Question(mark, {"model": model, "messages": messages, "max_tokens": 8, **fields})


async def a_pair(world: World, pool: Pool, group: str, model: str | None = None) -> Pair:
    """Have a pair of that group compute a prompt, and wait until every worker prefers it for such prompts."""
    asked = model or pool.name
    while True:
        about = uuid4().hex
        answer = await world.send(CHAT, a_question(asked, about).body)
        assert answer.status == 200, answer.body
        # Its end teaches more.
        await ended(world, answer)
        if pool.seats[answer.served_by].group == group:
            break
    agreed: list[Pair] = []

    async def preferred() -> bool:
        agreed[:] = [await _preferred(world, admin, pool, asked, about) for admin in world.stack.admins]
        return len({(pair.prefill.name, pair.decode.name) for pair in agreed}) == 1 and (
            agreed[0].decode.name == answer.served_by
        )

    await until(preferred, within=PATIENCE_S)
    return agreed[0]


async def _preferred(world: World, admin: str, pool: Pool, model: str, about: str) -> Pair:
    told = await preview(world, admin, a_question(model, about).body)
    prefill, decode = (name(each["candidates"][0]) for each in (told["handoff"]["prefill"], told))
    return Pair(about, pool.seats[prefill], pool.seats[decode])


@dataclass(frozen=True, slots=True)
class Got:
    """All that a client got on a connection of its own."""

    status: int
    """0: nothing."""
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    """The answer has its end."""
    rest: bytes
    """What came after the end."""

    @property
    def reason(self) -> str | None:
        return self.headers.get("x-kvoy-reason")

    @classmethod
    def of(cls, raw: bytes) -> "Got":
        """Everything from the first byte to the end of the connection."""
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        if not lines:
            return cls(0, {}, b"", False, b"")
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        if "content-length" in headers:
            length = int(headers["content-length"])
            body, whole, rest = rest[:length], len(rest) >= length, rest[length:]
        else:
            body, whole, rest = _unchunked(rest)
        return cls(int(first.split()[1]), headers, body, whole, rest)


def _unchunked(raw: bytes) -> tuple[bytes, bool, bytes]:
    """What chunks hold, whether the last one is there, and what follows it."""
    body = b""
    while b"\r\n" in raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        body, raw = body + raw[:length], raw[length + 2 :]
        if not length:
            return body, True, raw
    return body, False, b""


class Call:
    """A request on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._raw = b""

    async def until(self, part: bytes) -> None:
        """Wait until the answer contains these bytes."""
        while part not in self._raw:
            more = await self._reader.read(2**16)
            assert more, f"{part!r} is not in {len(self._raw)} bytes that begin with {self._raw[:500]!r}"
            self._raw += more

    async def got(self) -> Got:
        """Wait for the end of the connection."""
        try:
            while more := await self._reader.read(2**16):
                self._raw += more
        except ConnectionResetError:
            pass
        return Got.of(self._raw)

    def leave(self) -> None:
        """Hang up, whatever is still to come."""
        self._writer.transport.abort()


@asynccontextmanager
async def a_call(world: World, body: Any, *, path: str = CHAT) -> AsyncIterator[Call]:
    """Send a request; the client leaves with the block."""
    address = urlsplit(world.stack.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    call = Call(reader, writer)
    try:
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: kvoy\r\nconnection: close\r\ncontent-type: application/json\r\n"
        )
        writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(content) + content)
        yield call
    finally:
        call.leave()
