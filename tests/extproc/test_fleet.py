import json
from random import Random

import pytest

from extproc import request
from extproc.accesslog import Entry, Outcome
from extproc.cache.frames import Namespace
from extproc.fleet import Fleet
from extproc.lookup import Lookup
from extproc.request import InferenceRequest
from extproc.reservations import Reservation
from extproc.schedule.placement import Placement
from extproc.schedule.pool import Prompt
from extproc.schedule.scheduler import Scheduler
from extproc.state.live import Engine, InFlight, Load
from extproc.state.records import Profile
from extproc.state.snapshot import Endpoint, Snapshot
from extproc.testing import a_fleet, a_pod, a_route, a_rule, a_server, a_snapshot

SERVER = a_server("s")
TEXT = "All happy families are alike; " * 200


def a_world(*pods: str) -> Snapshot:
    listed = [a_pod(name, "s", ip=f"10.0.0.{at + 1}") for at, name in enumerate(pods)]
    return a_snapshot(a_route("r", a_rule("s"), model="m"), SERVER, *listed)


class World:
    """A fleet on a clock of its own."""

    def __init__(self, *pods: str) -> None:
        self.now = 100.0
        self.fleet: Fleet = a_fleet(lambda: self.now)
        self.become(*pods)

    def become(self, *pods: str) -> None:
        self.snapshot = a_world(*pods)
        self.fleet.adopt(self.snapshot)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self.snapshot.endpoints[SERVER.key]

    def observe(self, pod: str, **seen: object) -> None:
        (endpoint,) = [e for e in self.endpoints if e.pod == f"pod/default/{pod}"]
        self.fleet.engines.observe(Engine(endpoint.key, endpoint.address, 0.0, **seen))

    def lookup(self, text: str = TEXT, *, salt: str | None = None, adapter: str | None = None) -> Lookup:
        return self.fleet.lookup(SERVER, an_ask(text, salt), adapter, None)

    def place(self, text: str = TEXT, *, at: str | None = None) -> Reservation:
        """Place a request: on the pod `at`, or where the default profile wants it."""
        asked, found = an_ask(text), self.lookup(text)
        endpoints = [e for e in self.endpoints if at is None or e.pod == f"pod/default/{at}"]
        pool = self.fleet.pool(endpoints, Prompt(found.tokens), found)
        placement = Scheduler.of(Profile()).place(pool, Random(1))
        assert isinstance(placement, Placement)
        reservation = self.fleet.reserve(SERVER.key, "route/default/r", "id", asked, found, placement)
        self.settle()
        return reservation

    def settle(self) -> None:
        while self.fleet.holdings.step():
            pass

    def cached(self, text: str = TEXT, **options: str) -> dict[str, int]:
        found = self.lookup(text, **options).approximate(self.endpoints)
        return {e.pod.removeprefix("pod/default/"): n for e, n in zip(self.endpoints, found, strict=True)}

    def end(self, reservation: Reservation, **told: object) -> None:
        entry = {
            "instance": "i", "reservation": reservation.id, "request_id": "id", "status": 200,
            "client_gone": False, "broken": False, "served": reservation.address, "first_byte_s": 0.1,
            "duration_s": 1.0, "prompt_tokens": 1500, "completion_tokens": 5, "cached_tokens": None,
        }  # fmt: skip
        self.fleet.reservations.release(reservation.id)
        self.fleet.ended(Outcome(reservation, Entry(**{**entry, **told})))
        self.settle()


def an_ask(text: str, salt: str | None = None) -> InferenceRequest:
    fields = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True}
    body = json.dumps({**fields, **({"cache_salt": salt} if salt else {})}).encode()
    parsed = request.parse(request.APIS["/v1/chat/completions"], body)
    assert isinstance(parsed, InferenceRequest)
    return parsed


@pytest.fixture
def world() -> World:
    return World("a", "b")


def test_at_first_nothing_is_known_of_any_engine(world: World):
    assert world.cached() == {"a": 0, "b": 0}
    pool = world.fleet.pool(world.endpoints, Prompt(10), world.lookup())
    assert (pool.loads, list(pool.engines)) == ([Load(0, 0)] * 2, [None, None])


def test_a_pod_that_got_a_prompt_has_it_cached(world: World):
    world.place(at="b")
    cached = world.cached()

    assert cached["a"] == 0
    assert cached["b"] == pytest.approx(len(TEXT) / 4, rel=0.1)
    assert world.cached(TEXT + "every unhappy family")["b"] == pytest.approx(len(TEXT) / 4, rel=0.1)
    assert world.cached("Something else. " * 300) == {"a": 0, "b": 0}


def test_prompts_of_other_salts_and_adapters_share_nothing(world: World):
    world.place(at="b")

    assert world.cached(salt="tenant")["b"] == 0
    assert world.cached(adapter="lora")["b"] == 0


def test_a_reservation_counts_only_what_is_to_be_computed(world: World):
    first = world.place(at="a")
    second = world.place(at="a")

    assert first.tokens == pytest.approx(len(TEXT) / 4, rel=0.1)
    assert second.tokens < 200
    assert world.fleet.reservations.load("pod/default/a") == Load(2, first.tokens + second.tokens)


def test_prompt_tokens_stop_counting_when_they_should_be_computed(world: World):
    world.place(at="a")
    world.now += 10.0

    assert world.fleet.reservations.load("pod/default/a") == Load(1, 0)


def test_observations_are_shown_while_they_are_fresh(world: World):
    world.observe("a", waiting=3)
    pool = world.fleet.pool(world.endpoints, Prompt(10), world.lookup())
    assert [engine and engine.waiting for engine in pool.engines] == [3, None]

    world.now += 6.0
    pool = world.fleet.pool(world.endpoints, Prompt(10), world.lookup())
    assert list(pool.engines) == [None, None]


def test_what_other_workers_have_in_flight_is_part_of_the_load(world: World):
    world.fleet.reservations.absorb(InFlight("other", {"pod/default/a": Load(4, 900)}, whole=True))

    assert world.fleet.pool(world.endpoints, Prompt(1), world.lookup()).loads == [Load(4, 900), Load(0, 0)]


def test_a_restarted_engine_has_nothing_cached(world: World):
    world.observe("a", started=1000.0)
    world.place(at="a")
    assert world.cached()["a"] > 0

    world.observe("a", started=2000.0)

    assert world.cached()["a"] == 0


def test_a_pod_that_left_and_one_that_took_its_address_share_nothing(world: World):
    world.place(at="b")
    world.become("a")
    world.become("a", "c")

    assert world.cached() == {"a": 0, "c": 0}
    assert len(world.fleet.holdings.lives) == 2


def test_a_request_that_failed_filled_no_cache(world: World):
    world.end(world.place(at="a"), status=503, prompt_tokens=0)

    assert world.cached()["a"] == 0


def test_a_request_that_never_reached_the_pod_filled_no_cache(world: World):
    reservation = world.place(at="a")
    world.fleet.take_back(reservation.id)
    world.settle()

    assert world.cached()["a"] == 0
    assert world.fleet.reservations.load("pod/default/a") == Load(0, 0)


def test_a_statement_about_another_address_is_not_about_this_pod(world: World):
    world.observe("a", started=1000.0)
    world.place(at="a")

    world.fleet.engines.observe(Engine("pod/default/a", "10.9.9.9:8000", 0.0, started=3000.0))

    assert world.cached()["a"] > 0


def test_an_engine_of_which_nobody_speaks_any_more_is_the_same(world: World):
    world.observe("a", started=1000.0)
    world.place(at="a")
    world.now += 1000.0
    world.fleet.engines.forget()
    world.become("a", "b", "c")

    assert world.cached()["a"] > 0


def test_a_pod_at_two_ports_is_one_engine_that_lasts():
    both = (a_server("s"), a_server("t", port=9000))
    fleet = a_fleet(lambda: 0.0)
    lives = set()
    for created in range(3):
        route = a_route("r", a_rule("s"), model="m", created=created)
        fleet.adopt(a_snapshot(route, *both, a_pod("a", "s", "t", ip="10.0.0.1")))
        lives |= set(fleet.holdings.lives)

    assert len(lives) == 1


def test_a_capacity_that_is_told_later_replaces_the_assumed_one(world: World):
    (life,) = [world.fleet._lives["pod/default/a"]]
    world.observe("a", capacity_tokens=1000)
    world.settle()

    assert world.fleet._lives["pod/default/a"] == life
    assert world.fleet.holdings.capacity(life) == 4000


def test_the_pod_that_served_in_place_of_the_chosen_one_has_the_prompt(world: World):
    world.end(world.place(at="a"), served="10.0.0.2:8000")

    cached = world.cached()
    assert cached["a"] == 0
    assert cached["b"] > 1000


def test_an_engine_whose_cache_was_reset_stops_attracting(world: World):
    texts = [f"{at} {TEXT}" for at in range(8)]
    for text in texts:
        world.end(world.place(text, at="a"), cached_tokens=0)
    assert world.cached(texts[7])["a"] > 1000

    for text in texts[:3]:
        world.end(world.place(text, at="a"), cached_tokens=0)

    assert world.cached(texts[7])["a"] == 0, "what nobody has asked for again is forgotten, too"


def test_a_failed_prediction_lowers_what_the_next_one_promises(world: World):
    world.end(world.place(at="a"), cached_tokens=0)
    before = world.cached()["a"]
    world.end(world.place(at="a"), cached_tokens=0)

    assert 0 < world.cached()["a"] < before


def test_wrong_predictions_shrink_the_capacity_for_every_worker(world: World):
    world.observe("a", started=5.0, capacity_tokens=1000)
    world.end(world.place(at="a"), cached_tokens=0)
    while world.fleet.holdings.take_outbox(10**9):
        pass
    world.end(world.place(at="a"), cached_tokens=300)

    assert world.fleet.holdings.take_outbox(10**9), "the other workers are told"


def test_the_index_counts_its_blocks(world: World):
    world.place(at="a")
    world.place(at="b")

    assert world.fleet.holdings.entries(Namespace.PREFIX) == len(world.lookup().chain)
