"""A transfer's parameters on the real Envoy: who gets them, and who must not."""

import asyncio
import io
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from controller.xds.transfers import transfer_filters
from extproc.state.records import Disaggregation, ModelServer, Retry
from tests.controller.xds.mesh import Mesh
from tests.controller.xds.stub_worker import Context, StubWorker, decision, let_headers_pass

RETRY = Retry(attempts=2, interval_s=0.005)
SERVER = ModelServer("ns", "s", "vLLM", 8000, retry=RETRY, disaggregation=Disaggregation("nixl"))
PARAMS = b'"kv_transfer_params":{"remote_block_ids":[[1,2]]},'
PREFILLER = "10.0.0.9:8000"


def transfer(
    mesh: Mesh,
    *,
    length: int = len(PARAMS),
    partners: tuple[int, ...] = (0, 1, 2),
    tries: int = 0,
    needed: bool = False,
) -> None:
    """From now on PARAMS are in every body that a worker lets pass, for the engines `partners`."""
    told = {
        "start": 1,
        "length": length,
        "partners": f",{','.join(mesh.engines[i].address for i in partners)},",
        "tries": tries,
        "needed": needed,
    }

    async def behaviour(worker: StubWorker, context: Context) -> None:
        await let_headers_pass(worker, context)
        body = (await context.read()).request_body.body
        headers = {"x-prefiller-host-port": PREFILLER}
        if length:
            body = b"{" + PARAMS + body[1:]
            headers = {"content-length": str(len(body))}
        answer = decision(worker, "request_body", headers, body)
        answer.dynamic_metadata["kvoy"].update({"transfer": told})
        await context.write(answer)

    for worker in mesh.workers:
        worker.behaviour = behaviour


def fails(status: int):
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text="as the engine says")

    return handler


async def breaks_off(request: web.Request) -> web.StreamResponse:
    request.transport.abort()
    return web.Response()


def carried(mesh: Mesh) -> list[list[bool]]:
    """Of each engine, which of its requests carried PARAMS; each is whole and says its true length."""
    for engine in mesh.engines:
        for headers, body in zip(engine.seen, engine.bodies, strict=True):
            assert int(headers["Content-Length"]) == len(body)
            assert json.loads(body)["model"] == "m"
            assert not [name for name in headers if name.lower().startswith("x-kvoy-")]
    return [[PARAMS in body for body in engine.bodies] for engine in mesh.engines]


@pytest.fixture
async def mesh(start_mesh):
    async with start_mesh(server=SERVER, engines=3) as running:
        yield running


QUESTION = {"model": "m", "prompt": "0123456789" * 30}


async def test_a_partner_gets_the_parameters_wherever_it_is_in_the_list(mesh):
    for only in range(3):
        transfer(mesh, partners=(only,))
        mesh.route_to(mesh.engines[only].address)
        assert (await mesh.ask(json=QUESTION))[0] == 200
    assert carried(mesh) == [[True], [True], [True]]


async def test_an_endpoint_for_which_they_were_not_made_gets_the_clients_body(mesh):
    transfer(mesh, partners=(1,))
    assert (await mesh.ask(json=QUESTION))[0] == 200
    assert carried(mesh) == [[False], [], []]
    assert json.loads(mesh.engines[0].bodies[0]) == QUESTION


async def test_a_port_that_begins_like_a_partners_is_no_partner(mesh):
    transfer(mesh, partners=())
    address = mesh.engines[0].address
    worker = mesh.workers[0]

    async def lookalikes(worker: StubWorker, context: Context) -> None:
        await let_headers_pass(worker, context)
        body = b"{" + PARAMS + (await context.read()).request_body.body[1:]
        answer = decision(worker, "request_body", {"content-length": str(len(body))}, body)
        partners = f",1{address},{address}0,"
        told = {"start": 1, "length": len(PARAMS), "partners": partners, "tries": 0, "needed": False}
        answer.dynamic_metadata["kvoy"].update({"transfer": told})
        await context.write(answer)

    worker.behaviour = lookalikes
    assert (await mesh.ask(json=QUESTION))[0] == 200
    assert carried(mesh) == [[False], [], []]


async def test_envoys_own_choice_does_not_get_them(mesh):
    transfer(mesh, partners=())
    mesh.route_to()
    assert (await mesh.ask(json=QUESTION))[0] == 200
    assert [each for engine in carried(mesh) for each in engine] == [False]


@pytest.mark.parametrize("status", [500, 503])
async def test_after_an_error_they_are_not_sent_again(mesh, status):
    mesh.engines[0].handler = fails(status)
    mesh.engines[1].handler = fails(503)
    transfer(mesh)
    assert (await mesh.ask(json=QUESTION))[0] == 200
    assert carried(mesh) == [[True], [False], [False]]


async def test_an_attempt_that_was_not_answered_leaves_them(mesh):
    mesh.engines[0].handler = breaks_off
    transfer(mesh)
    assert (await mesh.ask(json=QUESTION))[0] == 200
    assert carried(mesh) == [[True], [True], []]


async def test_they_are_good_for_as_many_attempts_as_the_worker_says(mesh):
    mesh.engines[0].handler = mesh.engines[1].handler = breaks_off
    transfer(mesh, tries=1)
    assert (await mesh.ask(json=QUESTION))[0] == 200
    assert carried(mesh) == [[True], [False], [False]]


async def test_what_is_out_stays_out(mesh):
    mesh.engines[0].handler = breaks_off
    transfer(mesh, partners=(1, 2))
    assert (await mesh.ask(json=QUESTION))[0] == 200
    assert carried(mesh) == [[False], [False], []]


@pytest.mark.parametrize("size", [1_500_000, 5_000_000, 15_000_000])
async def test_a_large_body_is_cut_on_a_later_attempt_and_whole_before(mesh, size):
    mesh.engines[0].handler = fails(500)
    transfer(mesh)
    assert (await mesh.ask(data=io.BytesIO(json.dumps({"model": "m", "prompt": "x" * size}).encode())))[
        0
    ] == 200
    assert carried(mesh) == [[True], [False], []]
    assert json.loads(mesh.engines[1].bodies[0])["prompt"] == "x" * size


@pytest.mark.parametrize("size", [5_000_000, 15_000_000])
async def test_a_large_body_is_cut_at_once_and_again(mesh, size):
    mesh.engines[0].handler = fails(500)
    transfer(mesh, partners=())
    assert (await mesh.ask(data=io.BytesIO(json.dumps({"model": "m", "prompt": "x" * size}).encode())))[
        0
    ] == 200
    assert carried(mesh) == [[False], [False], []]
    assert mesh.engines[0].bodies == mesh.engines[1].bodies


async def test_requests_on_one_connection_do_not_mix(mesh):
    mesh.engines[0].handler = fails(500)
    transfer(mesh)
    for _ in range(3):
        assert (await mesh.ask(json=QUESTION))[0] == 200
    assert carried(mesh) == [[True] * 3, [False] * 3, []]


def prefillers(mesh: Mesh) -> list[list[str | None]]:
    return [[headers.get("x-prefiller-host-port") for headers in engine.seen] for engine in mesh.engines]


async def test_the_header_of_a_sidecar_goes_the_same_way(mesh):
    transfer(mesh, length=0, partners=(0, 2))
    mesh.engines[0].handler = breaks_off
    assert (await mesh.ask(json=QUESTION))[0] == 200
    mesh.engines[0].handler = fails(500)
    mesh.route_to(mesh.engines[0].address, mesh.engines[2].address)
    assert (await mesh.ask(json=QUESTION))[0] == 200
    assert prefillers(mesh) == [[PREFILLER, PREFILLER], [None], [None]]
    assert carried(mesh) == [[False, False], [False], [False]]


@pytest.mark.parametrize("length", [len(PARAMS), 0])
async def test_an_endpoint_that_can_do_nothing_without_is_not_asked(mesh, length):
    transfer(mesh, partners=(1,), needed=True, length=length)
    status, headers, body = await mesh.ask(json=QUESTION)
    assert (status, headers["x-kvoy-reason"]) == (502, "no-partner")
    assert json.loads(body)["error"]["code"] == "no_partner"
    assert [engine.seen for engine in mesh.engines] == [[], [], []]
    (entry,) = await mesh.entries(1)
    assert entry.response.response_code.value == 502


async def test_nor_after_another_has_failed(mesh):
    mesh.engines[0].handler = fails(500)
    transfer(mesh, needed=True)
    status, headers, _ = await mesh.ask(json=QUESTION)
    assert (status, headers["x-kvoy-reason"]) == (502, "no-partner")
    assert carried(mesh) == [[True], [], []]
    mesh.engines[0].handler = None
    assert (await mesh.ask(json=QUESTION))[0] == 200


async def test_a_request_without_a_transfer_is_not_held(mesh):
    arrived = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await arrived.wait()
        for _ in range(300):
            yield b"y" * 100_000

    async def read(request: web.Request) -> web.StreamResponse:
        await request.content.readexactly(1000)
        arrived.set()
        return web.Response(text=str(len(await request.content.read())))

    async def let_it_stream(worker: StubWorker, context: Context) -> None:
        await context.read()
        answer = decision(worker, "request_headers")
        answer.mode_override.request_body_mode = 0
        await context.write(answer)

    mesh.workers[0].behaviour = let_it_stream
    mesh.engines[0].handler, mesh.engines[0].reads = read, False
    status, _, answer = await mesh.ask(path="/v1/files", data=body())
    assert (status, answer) == (200, b"30000000")


async def test_the_script_meets_no_error(mesh):
    transfer(mesh, partners=())
    await mesh.ask(json=QUESTION)
    transfer(mesh, partners=(), needed=True)
    await mesh.ask(json=QUESTION)
    transfer(mesh, partners=(), length=0)
    await mesh.ask(json=QUESTION)
    assert "script log" not in mesh.envoy.log.read_text()


def test_the_request_is_sent_last():
    assert [each.name for each in transfer_filters()] == [
        "kvoy.attempt",
        "kvoy.transfers",
        "envoy.filters.http.upstream_codec",
    ]
