"""Both legs of a request are counted, each until it is over, and neither is counted twice."""

import json
from random import Random

import pytest

from extproc import request
from extproc.accesslog import Outcome
from extproc.handoff.connector import Reply
from extproc.legs import Legs
from extproc.lookup import Lookup
from extproc.reservations import Reservation
from extproc.schedule.placement import Placement
from extproc.schedule.pool import Prompt
from extproc.schedule.scheduler import Scheduler
from extproc.state.live import Load
from extproc.state.records import Disaggregation, Profile
from extproc.testing import a_fleet, a_part, a_route, a_rule, a_server, a_snapshot

SERVER = a_server("s", apart=Disaggregation("nixl"))
SNAPSHOT = a_snapshot(
    a_route("r", a_rule("s"), model="m"),
    SERVER,
    a_part("p1", "s", "prefill", ip="10.0.0.1"),
    a_part("p2", "s", "prefill", ip="10.0.0.2"),
    a_part("d", "s", "decode", ip="10.0.0.3"),
)
P1, P2 = SNAPSHOT.prefill[SERVER.key]
(D,) = SNAPSHOT.endpoints[SERVER.key]
TEXT = "All happy families are alike; " * 200


class World:
    """Two prefill endpoints and a decode endpoint, on a clock of their own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.fleet = a_fleet(lambda: self.now)
        self.fleet.adopt(SNAPSHOT)
        self.told: list[Outcome] = []
        self.legs = Legs(self.fleet, self.told.append)

    def place(self) -> tuple[Reservation, Reservation]:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": TEXT}]}).encode()
        asked = request.parse(request.APIS["/v1/chat/completions"], body)
        assert isinstance(asked, request.InferenceRequest)
        found = self.found = self.fleet.lookup(SERVER, asked, None, None)
        pool = self.fleet.pool([D], Prompt(found.tokens), found, role="decode")
        decode = Scheduler.of(Profile()).place(pool, Random(1))
        assert isinstance(decode, Placement)
        legs = self.legs.reserve(SERVER.key, "route/default/r", "id", asked, found, decode, P1)
        self.settle()
        return legs

    def settle(self) -> None:
        while self.fleet.holdings.step():
            pass

    def load(self, endpoint) -> Load:
        return self.fleet.reservations.load(endpoint.key)

    def cached(self, endpoint) -> int:
        self.settle()
        lookup: Lookup = self.fleet.lookup(SERVER, None, None, None)
        lookup.chain, lookup.prompt_bytes, lookup.tokens = (
            self.found.chain,
            self.found.prompt_bytes,
            self.found.tokens,
        )
        return lookup.approximate([endpoint])[0]

    @property
    def nothing_counts(self) -> bool:
        return self.fleet.reservations.counts() == {} and not self.legs.open


@pytest.fixture
def world() -> World:
    return World()


def test_the_prompt_counts_where_it_is_computed_the_request_at_both(world: World):
    _, prompt = world.place()

    assert world.load(P1) == Load(1, prompt.tokens)
    assert prompt.tokens > 1000
    assert world.load(D) == Load(1, 0)
    assert world.legs.open == 1


def test_both_will_have_the_prompt_cached(world: World):
    world.place()

    assert world.cached(P1) > 1000
    assert world.cached(D) > 1000
    assert world.cached(P2) == 0


def test_the_access_log_ends_the_answers_leg_alone(world: World):
    answer, prompt = world.place()

    assert world.fleet.reservations.release_request("id") is answer
    assert world.load(P1) == Load(1, prompt.tokens)


def test_a_computed_prompt_teaches_and_counts_no_more(world: World):
    answer, prompt = world.place()
    before = world.fleet.calibration.prefill_s(P1.key, 1000)

    world.legs.computed(prompt.id, Reply(None, prompt.tokens, 0), 0.05)

    assert world.load(P1) == Load(0, 0)
    assert world.load(D) == Load(1, 0)
    assert world.fleet.calibration.prefill_s(P1.key, 1000) < before
    assert [outcome.entry.prompt_tokens for outcome in world.told] == [prompt.tokens]
    assert world.cached(P1) > 1000
    assert world.fleet.reservations.release(answer.id) is not None
    assert world.nothing_counts


def test_another_prefill_endpoint_takes_over(world: World):
    _, prompt = world.place()

    other = world.legs.moved(prompt.id, P2)

    assert world.load(P1) == Load(0, 0)
    assert world.load(P2) == Load(1, prompt.tokens)
    assert world.cached(P1) == 0
    assert world.legs.open == 1
    world.legs.dropped(other, failed=True)
    assert world.load(P2) == Load(0, 0)
    assert world.cached(P2) == 0


def test_who_answers_alone_has_to_compute_the_prompt(world: World):
    answer, prompt = world.place()

    world.legs.dropped(prompt.id, failed=True)
    world.legs.settled(answer.id, receives=False)

    assert world.load(D) == Load(1, prompt.tokens)
    kept = world.fleet.reservations.get(answer.id)
    assert kept is not None
    assert not kept.claim.received
    world.fleet.reservations.release(answer.id)
    assert world.nothing_counts


def test_who_receives_the_prompt_has_not(world: World):
    answer, _ = world.place()

    world.legs.settled(answer.id, receives=True)

    assert world.load(D) == Load(1, 0)


def test_a_request_that_nobody_answers_leaves_nothing(world: World):
    answer, prompt = world.place()

    world.legs.dropped(prompt.id, failed=True)
    world.legs.refused(answer.id)

    assert world.nothing_counts
    assert world.cached(D) == 0


def test_a_client_that_left_proves_nothing_of_the_prefill_endpoint(world: World):
    _, prompt = world.place()

    world.legs.dropped(prompt.id, failed=False)

    assert world.load(P1) == Load(0, 0)
    assert world.cached(P1) > 1000


def test_what_a_sidecar_sees_to_counts_until_the_answer_has_ended(world: World):
    answer, prompt = world.place()

    world.legs.left_to_sidecar(answer.id, prompt.id)
    assert world.load(P1).requests == 1
    world.fleet.reservations.release(answer.id)
    world.legs.ended(answer.id)

    assert world.nothing_counts


def test_nothing_is_released_twice(world: World):
    _, prompt = world.place()
    _, second = world.place()

    world.legs.dropped(prompt.id, failed=True)
    world.legs.dropped(prompt.id, failed=True)
    world.legs.computed(prompt.id, Reply(None, 1000, 0), 0.1)

    assert world.load(P1).requests == 1
    world.legs.dropped(second.id, failed=False)
    assert world.load(P1).requests == 0


def test_endpoints_that_leave_meanwhile_are_counted_to_the_end_and_nothing_more(world: World):
    answer, prompt = world.place()
    world.fleet.adopt(a_snapshot(a_route("r", a_rule("s"), model="m"), SERVER))

    other = world.legs.moved(prompt.id, P2)
    assert world.load(P2).requests == 1
    world.legs.computed(other, Reply(None, 1500, 0), 0.1)
    world.legs.settled(answer.id, receives=False)
    world.legs.refused(answer.id)

    assert world.nothing_counts


def test_a_sidecars_answer_that_never_began_leaves_no_count_of_the_prompt_either(world: World):
    answer, prompt = world.place()
    world.legs.left_to_sidecar(answer.id, prompt.id)

    world.legs.refused(answer.id)

    assert world.nothing_counts
