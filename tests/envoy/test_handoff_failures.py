"""Every failure of `handoff_matrix`, brought about: clients see what the table says, and nothing is left."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.engine.faults import Die, Hang, NoParams, Status
from benchmarks.engine.journal import Outcome
from extproc.handoff.connectors import CONNECTORS as PROTOCOLS
from extproc.state.records import ConnectorName
from tests.envoy.apart import (
    CONNECTORS,
    GROUPS,
    PATIENCE_S,
    Apart,
    Call,
    Got,
    Leg,
    Pair,
    Pool,
    Question,
    Seat,
    a_call,
    a_pair,
    a_question,
    always,
    apart,
    disaggregated,
)
from tests.envoy.handoff_matrix import ROWS, Cell, Sees, table
from tests.envoy.world import World, a_model_route, to, until

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # What connects just as an engine ends is accepted by asyncio, and given to nobody.
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
]

PAGE = Path(__file__).parents[2] / "docs" / "prefill-decode.md"
HURRIED = "-hurried"
"""Name of the ModelServers over the same pods that do not wait long for a prefill pod."""
WORKER = "extproc-0"
SO_LATE = 3
"""How often a failure that shows at once may show late."""
BEGUN = b"200 OK"
TOKEN = b'"finish_reason":null,"token_ids":'


def is_concurrent(connector: ConnectorName) -> bool:
    return PROTOCOLS[connector].order == "concurrent"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Apart]:
    hurried = [each for each in CONNECTORS if each != "sidecar"]
    servers = [
        disaggregated(f"{each}{HURRIED}", each, prefill_timeout="3s", **always(each)) for each in hurried
    ]
    routes = [
        a_model_route(f"{each}{HURRIED}", f"{each}{HURRIED}", to(f"{each}{HURRIED}")) for each in hurried
    ]
    async with apart(hurried=[*servers, *routes]) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Trial:
    """One request, and the pair that it would go to."""

    world: World
    pool: Pool
    pair: Pair
    question: Question

    @property
    def streams(self) -> bool:
        return bool(self.question.body.get("stream"))

    @property
    def connector(self) -> ConnectorName:
        return self.pool.name

    async def answer(self) -> Got:
        async with a_call(self.world, self.question.body) as call:
            return await call.got()

    async def prefilling(self, call: Call, *, awaited: bool = True) -> Leg:
        """Wait until a prefill engine has the prompt; that leg.

        Where both legs begin at once, the decode engine has its own by then, and with `awaited` asks for the
        KV cache.
        """

        async def begun() -> bool:
            legs = self.prompt_legs()
            if not is_concurrent(self.connector):
                return bool(legs)
            waiting = bool(legs and self.answer_legs()) and not awaited
            return waiting or any(leg.seat.engine.transfers_awaited for leg in legs)

        try:
            await until(begun, within=PATIENCE_S)
        except TimeoutError:
            raise AssertionError(self.story(Got.of(b""))) from None
        if self.streams and is_concurrent(self.connector):
            await call.until(BEGUN)
        return self.prompt_legs()[-1]

    def story(self, got: Got) -> str:
        """For people, when a test fails."""
        legs = ", ".join(map(str, (*self.prompt_legs(), *self.answer_legs())))
        pair = f"{self.pair.prefill.name} and {self.pair.decode.name}"
        return f"{'streamed' if self.streams else 'plain'} for {pair}: {got.status} {got.reason} after {legs}"

    def prompt_legs(self) -> list[Leg]:
        return self.pool.legs(self.question.mark, "prefill")

    def answer_legs(self) -> list[Leg]:
        return self.pool.legs(self.question.mark, "decode")


async def prefill_refuses(trial: Trial) -> Got:
    await trial.pair.prefill.die()
    return await trial.answer()


async def prefill_503(trial: Trial) -> Got:
    trial.pair.prefill.fault(Status(503, times=1))
    return await trial.answer()


async def prefill_hangs(trial: Trial) -> Got:
    trial.pair.prefill.fault(Hang(times=1))
    return await trial.answer()


async def prefill_dies(trial: Trial) -> Got:
    prefill = trial.pair.prefill
    prefill.fault(Hang(times=1))
    # SGLang's decode engine would tell the client itself, and who is first is chance. All of them
    # are paused: of some, kvoy would take the others.
    silent = trial.pool.role("decode") if trial.connector == "sglang" else []
    for seat in silent:
        await seat.pause()
    await until(lambda: all_asleep(trial.world, silent), within=PATIENCE_S)
    async with a_call(trial.world, trial.question.body) as call:
        await trial.prefilling(call, awaited=not silent)
        await prefill.die()
        got = await call.got()
    for seat in silent:
        await seat.resume()
    return got


async def no_parameters(trial: Trial) -> Got:
    trial.pair.prefill.fault(NoParams(times=1))
    return await trial.answer()


async def every_prefill_refuses(trial: Trial) -> Got:
    for seat in trial.pool.group(trial.pair.prefill.group, "prefill"):
        await seat.die()
    return await trial.answer()


async def decode_refuses(trial: Trial) -> Got:
    await trial.pair.decode.die()
    return await trial.answer()


async def decode_503(trial: Trial) -> Got:
    trial.pair.decode.fault(Status(503, times=1))
    return await trial.answer()


async def blocks_gone(trial: Trial) -> Got:
    await trial.pair.prefill.revive(kv_lease_s=0)
    return await trial.answer()


async def transfer_refused(trial: Trial) -> Got:
    await trial.pair.prefill.revive(kv_port=0)
    return await trial.answer()


async def decode_dies(trial: Trial) -> Got:
    trial.pair.decode.fault(Die(times=1))
    return await trial.answer()


async def decode_dies_answering(trial: Trial) -> Got:
    trial.pair.decode.fault(Die(after_tokens=2, times=1))
    return await trial.answer()


async def client_leaves_prefill(trial: Trial) -> Got:
    trial.pair.prefill.fault(Hang(times=1))
    async with a_call(trial.world, trial.question.body) as call:
        await trial.prefilling(call)
    await until(lambda: nobody_asks(trial), within=PATIENCE_S)
    return Got.of(b"")


async def client_leaves_decode(trial: Trial) -> Got:
    long = {**trial.question.body, "max_tokens": 20_000}
    async with a_call(trial.world, long) as call:
        if trial.streams:
            await call.until(TOKEN)
        else:
            await until(lambda: computes(trial.pair.decode), within=PATIENCE_S)
    return Got.of(b"")


async def all_asleep(world: World, seats: list[Seat]) -> bool:
    """Whether all workers know it."""
    states = await world.states()
    return all(state["engines"][f"default/{seat.name}"].get("asleep") for state in states for seat in seats)


async def nobody_asks(trial: Trial) -> bool:
    legs = (*trial.prompt_legs(), *trial.answer_legs())
    return all(leg.received.outcome is not Outcome.OPEN for leg in legs)


async def computes(seat: Seat) -> bool:
    return seat.engine.running > 0


SCRIPTS: Mapping[str, Callable[[Trial], Coroutine[None, None, Got]]] = {
    "prefill-refuses": prefill_refuses,
    "prefill-503": prefill_503,
    "prefill-hangs": prefill_hangs,
    "prefill-dies": prefill_dies,
    "no-parameters": no_parameters,
    "every-prefill-refuses": every_prefill_refuses,
    "decode-refuses": decode_refuses,
    "decode-503": decode_503,
    "blocks-gone": blocks_gone,
    "transfer-refused": transfer_refused,
    "decode-dies": decode_dies,
    "decode-dies-answering": decode_dies_answering,
    "client-leaves-prefill": client_leaves_prefill,
    "client-leaves-decode": client_leaves_decode,
}
CHANGED = ("blocks-gone", "transfer-refused")
"""Failures for which an engine has other settings."""
MEETING = ("prefill-dies", "decode-dies-answering")
"""Failures of one group that concern the other one, too: engines of both are paused, or tried by Envoy."""


@pytest.mark.parametrize("failure", SCRIPTS)
async def test_clients_see_what_the_table_says(started: Apart, failure: str) -> None:
    cells, seen = ROWS[failure].cells, dict[ConnectorName, Cell]()

    async def tried(pool: Pool) -> None:
        for _ in range(SO_LATE):
            cell = await _cell(started.world, pool, failure)
            seen[pool.name] = replace(cell, late=cells[pool.name].late)
            if not is_late(seen[pool.name]):
                break

    async with asyncio.TaskGroup() as tasks:
        for connector in cells:
            tasks.create_task(tried(started.pools[connector]))

    await started.idle()
    assert not all(map(is_late, seen.values())), "what shows at once is never seen in time"
    assert {name: punctual(cell, cells[name]) for name, cell in seen.items()} == dict(cells)


def is_late(cell: Cell) -> bool:
    return cell.plain in cell.late or cell.streamed in cell.late


def punctual(cell: Cell, wanted: Cell) -> Cell:
    """As if a failure that was seen late had been seen at once."""
    plain, streamed = (
        should if sees in cell.late else sees
        for sees, should in ((cell.plain, wanted.plain), (cell.streamed, wanted.streamed))
    )
    return replace(cell, plain=plain, streamed=streamed)


async def _cell(world: World, pool: Pool, failure: str) -> Cell:
    """What two clients see, each of a group of its own."""
    model = pool.name + HURRIED if failure == "prefill-hangs" else pool.name
    # Both before anything fails: the first request of a pair may go anywhere.
    pairs = [await a_pair(world, pool, group, model) for group in GROUPS]
    trials = [
        Trial(world, pool, pair, a_question(model, pair.about, stream=stream))
        for pair, stream in zip(pairs, (False, True), strict=True)
    ]
    try:
        if failure in MEETING:
            tried = [(trial, await SCRIPTS[failure](trial)) for trial in trials]
        else:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(SCRIPTS[failure](trial)) for trial in trials]
            tried = [(trial, task.result()) for trial, task in zip(trials, running, strict=True)]
        await pool.rest()
        for trial, got in tried:
            print(failure, trial.story(got))
        plain, streamed = (_decode_alone(failure, sees(*each)) for each in tried)
    finally:
        for seat in pool.seats.values() if failure in CHANGED else ():
            await seat.revive()
        await pool.whole(world)
    return Cell(plain, streamed)


def _decode_alone(failure: str, seen: Sees) -> Sees:
    """Where decode pods are well, only the chosen one is asked; that need not be the foreseen one."""
    well = failure.startswith(("prefill", "every-prefill"))
    return Sees.ALONE if well and seen is Sees.OTHER_ALONE else seen


def sees(trial: Trial, got: Got) -> Sees:
    """In the words of the table. Checks what holds of every answer."""
    served = [leg for leg in trial.answer_legs() if leg.served]
    assert len(served) <= 1, "one answer at most"
    assert not got.rest, "nothing follows the end of an answer"
    if not got.status:
        assert not served
        return Sees.LEFT
    if not got.whole:
        return Sees.CUT
    if got.status != 200:
        return Sees(f"{got.status} {got.reason or 'of the engine'}")
    if trial.streams:
        assert got.body.endswith(b"data: [DONE]\n\n")
        if b'data: {"error"' in got.body:
            return Sees.ERROR_EVENT
    (leg,) = served
    assert leg.seat.name == got.headers["x-engine-name"]
    return _answered(trial, leg)


def _answered(trial: Trial, answer: Leg) -> Sees:
    computed = [leg.seat for leg in trial.prompt_legs() if leg.served]
    same = answer.seat is trial.pair.decode
    shared = trial.connector in ("http", "lmcache")
    if not (computed if shared else answer.transfer):
        return Sees.ALONE if same else Sees.OTHER_ALONE
    if not same:
        return Sees.OTHER_DECODE
    same = all(seat is trial.pair.prefill for seat in computed)
    return Sees.ANSWER if same else Sees.OTHER_PREFILL


@pytest.mark.parametrize(
    ("failure", "how"), [("worker-stops", signal.SIGTERM), ("worker-killed", signal.SIGKILL)]
)
async def test_clients_of_a_worker_that_ends(started: Apart, failure: str, how: signal.Signals) -> None:
    world, cells = started.world, ROWS[failure].cells
    pools = [started.pools[connector] for connector in cells]
    prefills = [seat for pool in pools for seat in pool.seats.values() if seat.role == "prefill"]
    (worker,) = world.workers(WORKER)
    for seat in prefills:
        await seat.pause()
    async with AsyncExitStack() as resources:
        calls = [
            await _on_the_worker(resources, world, pool, stream=stream)
            for pool in pools
            for stream in (False, True)
        ]
        os.kill(worker, how)
        await until(lambda: _gone(world, [trial for trial, _ in calls], how), within=PATIENCE_S)
        for seat in prefills:
            await seat.resume()
        got = [await call.got() for _, call in calls]

    for pool in pools:
        await pool.rest()
    await until(lambda: _replaced(world, worker), within=PATIENCE_S)
    await started.idle()
    seen = [answered(trial, each) for (trial, _), each in zip(calls, got, strict=True)]
    assert dict(zip(cells, map(Cell, seen[::2], seen[1::2]), strict=True)) == dict(cells)
    for pool in pools:
        await pool.whole(world)


async def _on_the_worker(
    resources: AsyncExitStack, world: World, pool: Pool, *, stream: bool
) -> tuple[Trial, Call]:
    """A request whose prompt is being computed, by order of that worker."""
    nobody = next(iter(pool.seats.values()))
    while True:
        question = a_question(pool.name, stream=stream)
        async with AsyncExitStack() as kept:
            call = await kept.enter_async_context(a_call(world, question.body))
            trial = Trial(world, pool, Pair("", nobody, nobody), question)
            leg = await trial.prefilling(call)
            decided = await world.explain(leg.received.header("x-request-id") or "")
            if decided["worker"] == WORKER:
                resources.push_async_exit(kept.pop_all())
                return trial, call


def answered(trial: Trial, got: Got) -> Sees:
    """As `sees`; with a transfer, whichever endpoints it was between."""
    seen = sees(trial, got)
    return Sees.ANSWER if seen in (Sees.OTHER_PREFILL, Sees.OTHER_DECODE) else seen


async def _gone(world: World, trials: list[Trial], how: signal.Signals) -> bool:
    """The worker takes no more requests, and its calls are over if it was killed."""
    if how is signal.SIGKILL:
        return not any(trial.prompt_legs()[0].received.outcome is Outcome.OPEN for trial in trials)
    return not await world.ready()


async def _replaced(world: World, worker: int) -> bool:
    return world.workers(WORKER) not in ([], [worker]) and await world.ready()


async def test_clients_while_the_store_is_gone(started: Apart) -> None:
    world, row = started.world, ROWS["store-gone"]
    trials = []
    for connector in row.cells:
        pair = await a_pair(world, started.pools[connector], "a")
        for stream in (False, True):
            question = a_question(connector, pair.about, stream=stream)
            trials.append(Trial(world, started.pools[connector], pair, question))
    (store,) = world.stack.pids("valkey-server")
    os.kill(store, signal.SIGSTOP)
    try:
        seen = [sees(trial, await trial.answer()) for trial in trials]
    finally:
        os.kill(store, signal.SIGCONT)

    for pool in started.pools.values():
        await pool.rest()
    await started.idle()
    cells = dict(zip(row.cells, map(Cell, seen[::2], seen[1::2]), strict=True))
    assert cells == dict(row.cells)


async def test_the_page_has_the_table() -> None:
    _, _, rest = PAGE.read_text().partition("<!-- failures -->\n")
    found, _, _ = rest.partition("<!-- /failures -->")

    assert [line for line in found.splitlines() if line.startswith("|")] == list(table())
