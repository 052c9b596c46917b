import json
from random import Random

import pytest

from benchmarks.replicas.play import play
from benchmarks.replicas.pods import Pod
from benchmarks.replicas.trace import Arrival, burst
from benchmarks.replicas.workers import Group, Refused, group
from extproc.state.records import ModelRoute, ModelServer, Rule, Target
from extproc.state.records import Pod as PodRecord

WORLD = [
    ModelRoute("bench", "m", (Rule((Target("m"),)),), model="m"),
    ModelServer("bench", "m", "vLLM", 8000),
    *(PodRecord("bench", f"m-{at}", f"10.0.0.{at}", ("m",)) for at in (1, 2)),
]
HELLO = json.dumps([{"role": "user", "content": "hello"}]).encode()


async def in_flight(workers: Group) -> int:
    states = [await worker.get("/debug/state") for worker in workers.workers]
    return sum(load["requests"] for state in states for load in state["in_flight"]["own"].values())


async def test_real_workers_place_requests_and_take_reports(monkeypatch):
    monkeypatch.setattr("benchmarks.replicas.workers.SILENCE_S", 0.0)
    async with group() as workers:
        await workers.publish(WORLD)
        await workers.start(2)
        one, other = workers.workers

        placed = await one.place("m", HELLO)
        assert set(placed.addresses) == {"10.0.0.1:8000", "10.0.0.2:8000"}
        assert await in_flight(workers) == 1
        await one.report(placed, None, 0)
        with pytest.raises(Refused, match="does not exist"):
            await other.place("nobody", HELLO)

        pods = {f"10.0.0.{at}:8000": Pod(1e6, 10_000) for at in (1, 2)}
        outcome = await play(
            [*burst(0.0, 8, 400, Random(1)), Arrival(0.1, HELLO, 1)], "m", [one, other], pods
        )
        assert len(outcome.served) == outcome.by_pod.total() == 9
        assert set(outcome.by_pod) == set(pods)

        await workers.keep(1)
        assert len(workers.workers) == 1
        await workers.publish(WORLD[:3])
        assert (await one.place("m", HELLO)).addresses == ("10.0.0.1:8000",)
