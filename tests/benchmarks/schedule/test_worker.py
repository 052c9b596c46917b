import pytest

from benchmarks.schedule.prompts import prompts_of
from benchmarks.schedule.scene import Scene
from benchmarks.schedule.worker import IN_FLIGHT, Worker
from extproc.cache.frames import Namespace


@pytest.mark.parametrize("exact", [False, True])
def test_a_decision_reserves_and_learns(exact):
    (prompts,) = prompts_of([32])
    worker = Worker(Scene(4, 0, exact), "w")
    assert worker.decide(prompts.draw()) > 0
    while worker.holdings.step():
        pass
    assert sum(load.requests for load in worker.reservations.counts().values()) == 1
    assert worker.holdings.entries(Namespace.PREFIX) == 32


def test_requests_end():
    (prompts,) = prompts_of([8])
    worker = Worker(Scene(4, 0), "w")
    for _ in range(IN_FLIGHT + 50):
        worker.decide(prompts.draw())
    assert sum(load.requests for load in worker.reservations.counts().values()) == IN_FLIGHT


def test_what_is_cached_steers():
    (prompts,) = prompts_of([256])
    scene = Scene(8, 0, exact=True)
    worker = Worker(scene, "w")
    whole = {}
    for life, snapshot in scene.kv([prompts]):
        whole[life] = len(snapshot.own)
        worker.holdings.restore(life, snapshot)
    while worker.holdings.step():
        pass
    worker.decide(prompts.known[0])
    (chosen,) = worker.reservations.counts().values()
    assert chosen.tokens < 256, "all but the last block is cached where the conversation was"
