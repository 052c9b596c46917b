"""Deciding on the real Envoy: a worker that fails, in whatever way, costs no request."""

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from aiohttp import web
from envoy.service.ext_proc.v3 import external_processor_pb2 as wire

from controller.xds.deciders import deciders
from tests.controller.xds import stub_worker
from tests.controller.xds.mesh import Mesh
from tests.controller.xds.stub_worker import Context, StubWorker, decision, let_headers_pass


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
        answer = wire.ProcessingResponse()
        answer.immediate_response.status.code = 503
        answer.immediate_response.body = b'{"error": "ours"}'
        for key, value in (("content-type", b"application/json"), ("x-kvoy-reason", b"no-ready-pod")):
            option = answer.immediate_response.headers.set_headers.add()
            option.header.key, option.header.raw_value = key, value
        await context.write(answer)

    async with start_mesh(workers=2) as mesh:
        for worker in mesh.workers:
            worker.behaviour = reject
        status, headers, body = await mesh.ask()
        assert (status, headers["x-kvoy-reason"], body) == (503, "no-ready-pod", b'{"error": "ours"}')
        assert headers["Content-Type"] == "application/json"
        assert sum(len(worker.asked) for worker in mesh.workers) == 1
        assert mesh.engines[0].seen == []


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
    first, second, third = (each.typed_config.unpack() for each in deciders())
    configs = (
        first,
        second.extension_config.typed_config.unpack(),
        third.extension_config.typed_config.unpack(),
    )
    assert [config.failure_mode_allow for config in configs] == [True, True, False]
    assert [config.grpc_service.envoy_grpc.cluster_name for config in configs] == [
        "kvoy-extproc",
        "kvoy-second-chance",
        "kvoy-third-chance",
    ]
    for config in configs:
        assert config.metadata_options.receiving_namespaces.untyped == ["envoy.lb", "kvoy"]
