from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from extproc.peers import Peers
from extproc.state.live import InFlight, Load

A, B = "pod/ns/a", "pod/ns/b"


class World:
    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.peers = Peers(self.add)

    def add(self, endpoint: str, requests: int, tokens: int) -> None:
        self.requests[endpoint] += requests
        self.tokens[endpoint] += tokens

    def state(self, instance: str, whole: bool = False, at: float = 0.0, **loads: Load) -> None:
        named = {f"pod/ns/{name}": load for name, load in loads.items()}
        self.peers.absorb(InFlight(instance, named, whole), at)

    def loads(self, endpoint: str) -> tuple[int, int]:
        return self.requests[endpoint], self.tokens[endpoint]


def test_peers_add_up() -> None:
    world = World()
    world.state("one", a=Load(2, 100))
    world.state("two", a=Load(1, 50), b=Load(1, 0))

    assert (world.loads(A), world.loads(B)) == ((3, 150), (1, 0))
    assert len(world.peers) == 2


def test_a_partial_statement_changes_what_it_names() -> None:
    world = World()
    world.state("one", a=Load(2, 100), b=Load(1, 10))
    world.state("one", a=Load(5, 0))

    assert (world.loads(A), world.loads(B)) == ((5, 0), (1, 10))


def test_a_whole_statement_replaces_everything() -> None:
    world = World()
    world.state("one", a=Load(2, 100), b=Load(1, 10))
    world.state("one", whole=True, b=Load(4, 4))

    assert (world.loads(A), world.loads(B)) == ((0, 0), (4, 4))


def test_said_twice_counts_once() -> None:
    world = World()
    for _ in range(3):
        world.state("one", a=Load(2, 100))
        world.state("one", whole=True, a=Load(2, 100))

    assert world.loads(A) == (2, 100)


def test_a_farewell_leaves_nothing() -> None:
    world = World()
    world.state("one", a=Load(2, 100))
    world.state("one", whole=True)
    world.state("never heard of", whole=True)

    assert world.loads(A) == (0, 0)
    assert len(world.peers) == 0


def test_without_requests_there_are_no_tokens() -> None:
    world = World()
    world.state("one", a=Load(1, 9))
    world.state("one", a=Load(0, 7))
    world.state("one", b=Load(-3, 5))

    assert (world.loads(A), world.loads(B)) == ((0, 0), (0, 0))


def test_who_is_silent_is_forgotten_and_counts_again_when_heard() -> None:
    world = World()
    world.state("silent", at=10.0, a=Load(2, 100))
    world.state("heard", at=11.0, a=Load(1, 1))
    world.peers.forget(11.0)
    assert world.loads(A) == (1, 1)
    world.peers.forget(11.0)
    assert world.loads(A) == (1, 1)

    world.state("silent", at=12.0, a=Load(3, 3))
    assert world.loads(A) == (4, 4)


def test_an_idle_peer_is_kept_by_what_it_says() -> None:
    world = World()
    world.state("one", at=10.0, a=Load(2, 100))
    world.state("one", at=14.0, b=Load(0, 0))
    world.peers.forget(12.0)

    assert world.loads(A) == (2, 100)


loads = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.builds(Load, st.integers(0, 5), st.integers(0, 100)), max_size=3
)
moves = st.lists(
    st.tuples(st.sampled_from(["one", "two", "three"]), st.sampled_from(["part", "whole", "gone"]), loads)
)


@given(moves)
def test_sums_are_those_of_what_was_stated(moves: list[tuple[str, str, dict[str, Load]]]) -> None:
    world, truth, at = World(), {}, 0.0
    for instance, move, named in moves:
        at += 1
        if move == "gone":
            # Everybody else was heard just now.
            for other in truth:
                if other != instance:
                    world.peers.absorb(InFlight(other, {}), at)
            world.peers.forget(at)
            truth = {other: stated for other, stated in truth.items() if other != instance}
        else:
            world.state(instance, whole=move == "whole", at=at, **named)
            truth[instance] = named if move == "whole" else truth.get(instance, {}) | named
        for name in "abc":
            held = [stated.get(name, Load(0, 0)) for stated in truth.values()]
            held = [load for load in held if load.requests]
            assert world.loads(f"pod/ns/{name}") == (
                sum(load.requests for load in held),
                sum(load.tokens for load in held),
            )
