"""Deciding on the real Envoy: a worker that fails, in whatever way, costs no request."""

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import aiohttp
import grpc
import pytest
from aiohttp import web

from controller.xds.deciders import deciders
from tests.controller.xds import stub_worker
from tests.controller.xds.mesh import DEADLINE_S, Mesh, until
from tests.controller.xds.stub_worker import (
    Context,
    StubWorker,
    decide,
    decision,
    immediate,
    leave_to_watch,
    let_headers_pass,
    more_time,
)


async def refuses_the_headers(worker: StubWorker, context: Context) -> None:
    await context.read()
    await context.abort(grpc.StatusCode.UNAVAILABLE, "not ready")


async def refuses_the_body(worker: StubWorker, context: Context) -> None:
    await let_headers_pass(worker, context)
    await context.read()
    await context.abort(grpc.StatusCode.UNAVAILABLE, "not ready")


async def fails_on_the_body(worker: StubWorker, context: Context) -> None:
    await let_headers_pass(worker, context)
    await context.read()
    await context.abort(grpc.StatusCode.INTERNAL, "a defect")


async def leaves_without_an_answer(worker: StubWorker, context: Context) -> None:
    await let_headers_pass(worker, context)
    await context.read()


async def hangs_on_the_headers(worker: StubWorker, context: Context) -> None:
    await context.read()
    await asyncio.Event().wait()


async def hangs_on_the_body(worker: StubWorker, context: Context) -> None:
    await let_headers_pass(worker, context)
    await context.read()
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "behaviour",
    [
        refuses_the_headers,
        refuses_the_body,
        fails_on_the_body,
        leaves_without_an_answer,
        hangs_on_the_headers,
        hangs_on_the_body,
    ],
)
async def test_one_failing_worker_costs_no_request(start_mesh, behaviour):
    asked = 0

    async def counted(worker: StubWorker, context: Context) -> None:
        nonlocal asked
        asked += 1
        await behaviour(worker, context)

    async with start_mesh(workers=2) as mesh:
        mesh.workers[0].behaviour = counted
        answers = await asyncio.gather(*(mesh.ask(json={"n": i}) for i in range(12)))
        assert [status for status, _, _ in answers] == [200] * 12
        assert asked
        assert sorted(mesh.engines[0].bodies) == sorted(b'{"n": %d}' % i for i in range(12))


async def test_a_worker_whose_socket_is_gone_costs_no_request(start_mesh):
    async with start_mesh(workers=2) as mesh:
        await mesh.workers[0].stop()
        answers = [await mesh.ask() for _ in range(20)]
        assert {status for status, _, _ in answers} == {200}


@asynccontextmanager
async def worker_process(mesh: Mesh, at: int, behaviour: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The worker `at` as a process of its own instead of in the test."""
    worker = mesh.workers[at]
    await worker.stop()
    arguments = (worker.socket, worker.name, worker.cluster, worker.endpoints, behaviour)
    root = Path(__file__).parents[3]
    process = await asyncio.create_subprocess_exec(
        sys.executable, stub_worker.__file__, *arguments, stdout=asyncio.subprocess.PIPE, cwd=root
    )
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()


async def test_kill_in_the_middle_of_an_exchange_costs_no_request(start_mesh):
    async with start_mesh(workers=2) as mesh:
        async with worker_process(mesh, 0, "die_on_body") as process:
            answers = await asyncio.gather(*(mesh.ask(json={"n": i}) for i in range(20)))
            await process.wait()
            answers += [await mesh.ask() for _ in range(20)]
        assert {status for status, _, _ in answers} == {200}


async def test_kill_under_load_costs_no_request(start_mesh):
    async with start_mesh(workers=2) as mesh:
        async with worker_process(mesh, 0, "decide") as process:
            statuses = []

            async def ask_on(times: int) -> None:
                for _ in range(times):
                    statuses.append((await mesh.ask())[0])

            async with asyncio.TaskGroup() as tasks:
                for _ in range(4):
                    tasks.create_task(ask_on(50))
                while len(statuses) < 40:
                    await asyncio.sleep(0.001)
                process.kill()
        assert statuses == [200] * 200


async def test_an_immediate_answer_ends_the_request_unchanged(start_mesh):
    async def reject(worker: StubWorker, context: Context) -> None:
        await let_headers_pass(worker, context)
        await context.read()
        headers = {"content-type": "application/json", "x-kvoy-reason": "no-ready-pod"}
        await context.write(immediate(503, b'{"error": "ours"}', headers))

    async with start_mesh(workers=2) as mesh:
        for worker in mesh.workers:
            worker.behaviour = reject
        status, headers, body = await mesh.ask()
        assert (status, headers["x-kvoy-reason"], body) == (503, "no-ready-pod", b'{"error": "ours"}')
        assert headers["Content-Type"] == "application/json"
        assert sum(len(worker.asked) for worker in mesh.workers) == 1
        assert mesh.engines[0].seen == []


@pytest.fixture
def impatient(monkeypatch) -> float:
    """Envoy waits for a decision only so long, in seconds."""
    monkeypatch.setattr("controller.xds.deciders.MESSAGE_TIMEOUT", timedelta(seconds=0.3))
    return 0.3


def takes_long(told: float, takes: float):
    """A worker that asks for `told` seconds after it has seen the body."""

    async def behaviour(worker: StubWorker, context: Context) -> None:
        await let_headers_pass(worker, context)
        await context.read()
        await context.write(more_time(told))
        await asyncio.sleep(takes)
        await context.write(decision(worker, "request_body"))

    return behaviour


async def test_a_worker_gets_the_time_that_it_asks_for(start_mesh, impatient):
    async with start_mesh() as mesh:
        mesh.workers[0].behaviour = takes_long(told=60, takes=4 * impatient)
        assert (await mesh.ask())[0] == 200
        assert len(mesh.workers[0].asked) == 1


async def test_no_more_time_than_the_longest_decision_is_given(start_mesh, impatient, monkeypatch):
    monkeypatch.setattr("controller.xds.deciders.LONGEST_TIMEOUT", timedelta(seconds=1))
    async with start_mesh() as mesh:
        mesh.workers[0].behaviour = takes_long(told=1.1, takes=4 * impatient)
        assert (await mesh.ask())[0] == 504


async def test_a_worker_that_takes_longer_than_it_said_is_left_for_another(start_mesh, impatient):
    async with start_mesh(workers=2) as mesh:
        mesh.workers[0].behaviour = takes_long(told=2 * impatient, takes=60)
        answers = await asyncio.gather(*(mesh.ask() for _ in range(8)))
        assert [status for status, _, _ in answers] == [200] * 8
        assert mesh.workers[0].asked


async def test_a_worker_that_dies_during_a_long_decision_is_replaced(start_mesh):
    async with start_mesh(workers=2) as mesh:
        async with worker_process(mesh, 0, "die_after_asking_for_time") as process:
            answers = await asyncio.gather(*(mesh.ask(json={"n": i}) for i in range(8)))
            await process.wait()
        assert [status for status, _, _ in answers] == [200] * 8


@dataclass
class Watching:
    """A worker that stays with a request that it has decided, until `failed`: in the filter for that."""

    failed: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def behaviour(self, worker: StubWorker, context: Context) -> None:
        if ("kvoy-watch", "offered") in context.invocation_metadata():
            await leave_to_watch(worker, context)
            return
        try:
            await decide(worker, context)
            await self.failed.wait()
            headers = {"content-type": "application/json", "x-kvoy-reason": "prefill-failed"}
            await context.write(immediate(502, b'{"error": "ours"}', headers))
        except asyncio.CancelledError:
            self.left.set()
            raise


@dataclass
class Waiting:
    """An engine that waits before or after the first byte of its answer."""

    begun: bool
    requests: list[web.Request] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def handler(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if self.begun:
            await response.prepare(request)
            await response.write(b"one ")
        self.requests.append(request)
        await self.go_on.wait()
        if not self.begun:
            await response.prepare(request)
        await response.write(b"two")
        return response

    async def is_left(self) -> None:
        """Envoy has closed its connection."""
        await until(lambda: self.requests and self.requests[0].transport is None, "Envoy leaves the engine")
        self.go_on.set()


@asynccontextmanager
async def watched(start_mesh, *, begun: bool) -> AsyncIterator[tuple[Mesh, Watching, Waiting]]:
    async with start_mesh() as mesh:
        watching, waiting = Watching(), Waiting(begun)
        mesh.workers[0].behaviour, mesh.engines[0].handler = watching.behaviour, waiting.handler
        yield mesh, watching, waiting


async def test_a_worker_may_end_a_request_that_waits_for_its_engine(start_mesh):
    async with watched(start_mesh, begun=False) as (mesh, watching, waiting):
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(mesh.ask())
            await until(lambda: waiting.requests, "the engine is asked")
            watching.failed.set()
            await waiting.is_left()
        status, headers, body = asked.result()
        assert (status, headers["x-kvoy-reason"], body) == (502, "prefill-failed", b'{"error": "ours"}')
        assert headers["Content-Type"] == "application/json"
        assert len(waiting.requests) == 1


async def test_a_worker_may_cut_an_answer_that_has_begun(start_mesh):
    async with watched(start_mesh, begun=True) as (mesh, watching, waiting), mesh.post() as answer:
        assert await answer.content.readexactly(4) == b"one "
        watching.failed.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
        await waiting.is_left()


async def test_a_client_that_leaves_is_told_to_the_worker_that_stays(start_mesh):
    async with watched(start_mesh, begun=True) as (mesh, watching, waiting):
        async with mesh.post() as answer:
            assert await answer.content.readexactly(4) == b"one "
            answer.close()
        await asyncio.wait_for(watching.left.wait(), DEADLINE_S)
        await waiting.is_left()


async def test_an_answer_that_has_begun_is_cut_if_the_worker_that_stays_is_lost(start_mesh):
    async with watched(start_mesh, begun=True) as (mesh, _, waiting), mesh.post() as answer:
        assert await answer.content.readexactly(4) == b"one "
        await mesh.workers[0].stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
        await waiting.is_left()


async def test_a_request_that_waits_ends_if_the_worker_that_stays_is_lost(start_mesh):
    async with watched(start_mesh, begun=False) as (mesh, _, waiting):
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(mesh.ask())
            await until(lambda: waiting.requests, "the engine is asked")
            await mesh.workers[0].stop()
            await waiting.is_left()
        status, headers, _ = asked.result()
        assert (status, headers["x-kvoy-reason"]) == (503, "router-unavailable")
        assert len(waiting.requests) == 1


async def test_what_was_left_to_the_watching_filter_is_decided_once(start_mesh):
    async with start_mesh(workers=2) as mesh:
        decided = []

        async def behaviour(worker: StubWorker, context: Context) -> None:
            if ("kvoy-watch", "offered") in context.invocation_metadata():
                await leave_to_watch(worker, context)
            else:
                decided.append(worker.name)
                await decide(worker, context)

        for worker in mesh.workers:
            worker.behaviour = behaviour
        answers = await asyncio.gather(*(mesh.ask(json={"n": i}) for i in range(8)))
        assert [status for status, _, _ in answers] == [200] * 8
        assert len(decided) == 8
        assert all("x-kvoy-watch" not in seen for seen in mesh.engines[0].seen)


async def test_a_client_cannot_ask_for_a_watch(mesh):
    status, _, _ = await mesh.ask(headers={"x-kvoy-watch": "1"})
    assert status == 200
    assert "x-kvoy-watch" not in mesh.workers[0].asked[0]


async def test_a_request_without_a_body_is_decided_on_its_headers(mesh):
    async with mesh.client.get(mesh.url + "/v1/models") as answer:
        assert answer.status == 200
    assert mesh.workers[0].bodies == []


async def test_a_changed_body_reaches_the_engine_with_its_length(mesh):
    async def rewrite(worker: StubWorker, context: Context) -> None:
        await let_headers_pass(worker, context)
        await context.read()
        body = b'{"model": "a longer name"}'
        await context.write(decision(worker, "request_body", {"content-length": str(len(body))}, body))

    mesh.workers[0].behaviour = rewrite
    status, _, _ = await mesh.ask(json={})
    assert status == 200
    assert mesh.engines[0].bodies == [b'{"model": "a longer name"}']
    assert mesh.engines[0].seen[0]["Content-Length"] == "26"


async def test_a_worker_may_let_a_body_stream_past_it(mesh):
    messages = []

    async def decide_early(worker: StubWorker, context: Context) -> None:
        await context.read()
        answer = decision(worker, "request_headers")
        answer.mode_override.request_body_mode = 0
        await context.write(answer)
        while (message := await context.read()) is not grpc.aio.EOF:
            messages.append(message)

    mesh.workers[0].behaviour = decide_early
    status, _, _ = await mesh.ask(path="/v1/files", data=io.BytesIO(b"x" * 9_000_000))
    assert status == 200
    assert len(mesh.engines[0].bodies[0]) == 9_000_000
    assert messages == []


async def test_a_stream_survives_its_worker(start_mesh):
    go_on = asyncio.Event()

    async def in_two_parts(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one ")
        await go_on.wait()
        await response.write(b"two")
        return response

    async with start_mesh() as mesh:
        mesh.engines[0].handler = in_two_parts
        async with mesh.post() as answer:
            assert await answer.content.readexactly(4) == b"one "
            await mesh.workers[0].stop()
            go_on.set()
            assert await answer.read() == b"two"


def test_only_the_last_filter_may_fail_a_request():
    first, *others = (each.typed_config.unpack() for each in deciders())
    configs = (first, *(each.extension_config.typed_config.unpack() for each in others))
    assert [config.failure_mode_allow for config in configs] == [True, True, False, False]
    assert [config.grpc_service.initial_metadata[0].value for config in configs] == [
        "offered",
        "offered",
        "offered",
        "on",
    ]
    assert [config.grpc_service.envoy_grpc.cluster_name for config in configs] == [
        "kvoy-extproc",
        "kvoy-second-chance",
        "kvoy-third-chance",
        "kvoy-extproc",
    ]
    for config in configs:
        assert config.metadata_options.receiving_namespaces.untyped == ["envoy.lb", "kvoy"]
