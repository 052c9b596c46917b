from collections import Counter

from extproc.turns import Turns


class Worker:
    def __init__(self, name: str, *others: str, now: float = 1_000_000.0) -> None:
        self.now = now
        self.peers = list(others)
        self.turns = Turns(name, lambda: self.peers, lambda: self.now)

    def place(self, endpoints: int) -> int:
        return int(self.turns.now() * endpoints)


NAMES = ("a", "b", "c", "d")


def workers(now: float) -> list[Worker]:
    return [Worker(name, *(other for other in NAMES if other != name), now=now) for name in NAMES]


def test_workers_begin_at_different_places():
    for window in range(50):
        places = {worker.place(8) for worker in workers(window * 0.25 + 0.01)}

        assert len(places) == 4


def test_every_place_has_its_turn():
    worker = Worker("a")
    seen: Counter[int] = Counter()
    for _ in range(4000):
        worker.now += 0.25
        seen[worker.place(8)] += 1

    assert all(400 < seen[place] < 600 for place in range(8)), seen


def test_within_a_moment_the_circle_stands_still():
    worker = Worker("a", now=1_000_000.001)
    first = worker.turns.now()
    worker.now += 0.2

    assert worker.turns.now() == first


def test_a_worker_that_comes_or_goes_is_noticed_within_a_second():
    worker = Worker("b", now=1_000_000.0)
    alone = worker.turns.now()
    worker.peers.append("a")
    assert worker.turns.now() == alone

    worker.now = 999_999.0  # a clock that was set back
    assert worker.turns.now() != alone


def test_it_is_a_share():
    for at in range(1000):
        assert 0.0 <= Worker("d", "a", "b", "c", now=at * 0.25).turns.now() < 1.0
