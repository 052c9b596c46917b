"""One trace through growing numbers of workers, by each policy."""

from collections.abc import AsyncIterator, Mapping, Sequence
from random import Random

from benchmarks.replicas.play import Outcome, play
from benchmarks.replicas.pods import Pod
from benchmarks.replicas.report import Row, row
from benchmarks.replicas.trace import Shape, burst, conversations
from benchmarks.replicas.workers import Group, group
from extproc.state import records
from extproc.state.records import Plugin, Profile, Record, Rule, Target

POLICIES: Mapping[str, Profile] = {
    "lmetric": Profile(),
    "least-request+prefix-cache": Profile(scorers=(Plugin("least-request"), Plugin("prefix-cache"))),
    "least-request": Profile(scorers=(Plugin("least-request"),)),
}
PODS = 8
PREFILL_TOKENS_PER_S = 10_000.0
CACHE_TOKENS = 40_000
_BURST_BYTES = 8000


async def measure(
    policies: Mapping[str, Profile], counts: Sequence[int], shape: Shape, bursts: int, seed: int
) -> AsyncIterator[Row]:
    """Rows, policy by policy, for each number of workers; each has pods of its own, cold at first."""
    async with group() as workers:
        await workers.publish(
            [
                record
                for name in policies
                for count in counts
                for record in _world(name, count, policies[name])
            ]
        )
        await workers.start(max(counts))
        for count in sorted(counts, reverse=True):
            await workers.keep(count)
            for name in policies:
                yield await _one(workers, name, count, shape, bursts, seed)


async def _one(workers: Group, policy: str, count: int, shape: Shape, bursts: int, seed: int) -> Row:
    rng = Random(seed)
    pods = {f"{_ip(policy, count, at)}:8000": Pod(PREFILL_TOKENS_PER_S, CACHE_TOKENS) for at in range(PODS)}
    model = _name(policy, count)
    outcome = await play(conversations(shape, rng), model, workers.workers, pods)
    shots: list[Outcome] = []
    for _ in range(bursts):
        fresh = {address: Pod(PREFILL_TOKENS_PER_S, CACHE_TOKENS) for address in pods}
        shots.append(await play(burst(0.0, 16, _BURST_BYTES, rng), model, workers.workers, fresh))
    return row(policy, count, outcome, shots)


def _world(policy: str, count: int, profile: Profile) -> list[Record]:
    name = _name(policy, count)
    server = records.ModelServer("bench", name, "vLLM", 8000, profile=profile)
    route = records.ModelRoute("bench", name, (Rule((Target(name),)),), model=name)
    pods = [records.Pod("bench", f"{name}-{at}", _ip(policy, count, at), (name,)) for at in range(PODS)]
    return [server, route, *pods]


def _name(policy: str, count: int) -> str:
    return f"{policy.replace('+', '-')}-{count}"


def _ip(policy: str, count: int, at: int) -> str:
    return f"10.{list(POLICIES).index(policy)}.{count}.{at + 1}"
