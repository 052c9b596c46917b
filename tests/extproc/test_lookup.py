import struct

import pytest

from extproc.cache import frames
from extproc.cache.chain import kv_chain, kv_root
from extproc.cache.frames import Namespace, Operation
from extproc.lookup import Lookup
from extproc.state.live import Engine
from extproc.state.snapshot import Endpoint
from extproc.testing import a_fleet, a_pod, a_route, a_rule, a_server, a_snapshot
from tests.extproc.test_fleet import an_ask

SERVER = a_server("s")
IDS = struct.pack("<100I", *range(100))


class World:
    """Endpoints `a` and `b`; engines tell with `events` what they have cached of IDS."""

    def __init__(self) -> None:
        self.now = 0.0
        self.fleet = a_fleet(lambda: self.now)
        pods = [a_pod(name, "s", ip=f"10.0.0.{at}") for at, name in enumerate("ab", 1)]
        snapshot = a_snapshot(a_route("r", a_rule("s"), model="m"), SERVER, *pods)
        self.fleet.adopt(snapshot)
        self.a, self.b = snapshot.endpoints[SERVER.key]

    def observe(self, endpoint: Endpoint, *, block_size: int | None = 16, kv_events: bool = True) -> None:
        self.fleet.engines.observe(
            Engine(
                endpoint.key, endpoint.address, 0.0, started=1.0, block_size=block_size, kv_events=kv_events
            )
        )

    def store(self, endpoint: Endpoint, blocks: int, *, block_size: int = 16) -> None:
        engine = self.fleet.engines.get(endpoint.key)
        assert engine is not None
        chain = kv_chain(kv_root(None, None, b"secret"), IDS, block_size)[:blocks]
        stored = frames.changes(engine.life, Namespace.KV, Operation.ADD, chain, 0)
        self.fleet.holdings.receive(frames.pack_all(list(stored)))
        while self.fleet.holdings.step():
            pass

    def lookup(self, ids: bytes | None = IDS) -> Lookup:
        return self.fleet.lookup(SERVER, an_ask("hello " * 200), None, ids)


@pytest.fixture
def world() -> World:
    return World()


def test_exact_ids_tell_the_length(world: World) -> None:
    assert world.lookup().tokens == 100
    assert world.lookup(None).tokens == pytest.approx(len("hello " * 200) / 4, rel=0.1)


def test_without_ids_or_followed_engines_nothing_is_exact(world: World) -> None:
    endpoints = [world.a, world.b]
    assert world.lookup().exact(endpoints) is None

    world.observe(world.a, kv_events=False)
    assert world.lookup().exact(endpoints) is None
    world.observe(world.b, block_size=None)
    assert world.lookup().exact(endpoints) is None

    world.observe(world.a)
    assert world.lookup(None).exact(endpoints) is None
    assert world.lookup().exact(endpoints) == [0, 0]


def test_blocks_that_engines_told_of_count_from_the_first_on(world: World) -> None:
    world.observe(world.a)
    world.observe(world.b)
    world.store(world.a, 4)
    world.store(world.b, 2)

    assert world.lookup().exact([world.a, world.b]) == [64, 32]
    assert world.lookup().is_exact([world.a])
    assert world.lookup().held(world.a) == 64


def test_the_last_token_is_always_computed(world: World) -> None:
    world.observe(world.a, block_size=20)
    world.store(world.a, 5, block_size=20)

    assert world.lookup().exact([world.a]) == [80]


def test_engines_with_blocks_of_different_sizes_are_each_looked_up_in_theirs(world: World) -> None:
    world.observe(world.a, block_size=16)
    world.observe(world.b, block_size=32)
    world.store(world.a, 3, block_size=16)
    world.store(world.b, 2, block_size=32)

    assert world.lookup().exact([world.a, world.b]) == [48, 64]


def test_an_endpoint_without_events_keeps_what_placements_tell(world: World) -> None:
    world.observe(world.a)
    world.store(world.a, 4)
    found = world.lookup()
    world.fleet.holdings.learn(world.fleet._lives[world.b.key], found.chain)
    while world.fleet.holdings.step():
        pass

    exact = found.exact([world.a, world.b])

    assert exact is not None
    assert exact[0] == 64
    assert exact[1] == found.approximate([world.b])[0] > 50


def test_an_engine_whose_collector_is_silent_is_not_followed_any_more(world: World) -> None:
    world.observe(world.a)
    world.store(world.a, 4)
    world.now = 4.0
    assert world.lookup().exact([world.a]) == [64]

    world.now = 6.0
    assert world.lookup().exact([world.a]) is None


def test_a_request_without_a_prompt_has_nothing_cached(world: World) -> None:
    nothing = world.fleet.lookup(SERVER, None, None, None)

    assert nothing.tokens == 0
    assert nothing.approximate([world.a, world.b]) == [0, 0]
    assert nothing.exact([world.a, world.b]) is None
    assert (nothing.depth(1), nothing.promised(0), nothing.is_exact([world.a])) == (0, 0, False)
