"""Errors that Envoy answers itself: one shape, and each with its reason. All of it on the real Envoy."""

import asyncio
import json
from datetime import timedelta

import grpc
import pytest
from aiohttp import web

from controller.xds.local_replies import REPLIES, local_replies
from extproc.state.records import Disaggregation, ModelServer, Retry
from tests.controller.xds.mesh import Mesh
from tests.controller.xds.stub_worker import Context, StubWorker, decision, let_headers_pass

SERVER = ModelServer("ns", "s", "vLLM", 8000, timeout_s=0.4, retry=Retry(attempts=1, interval_s=0.005))


@pytest.fixture
async def mesh(start_mesh):
    async with start_mesh(server=SERVER) as running:
        yield running


def check(reason: str, status: int, headers: dict[str, str], body: bytes) -> None:
    """The OpenAI shape, filled from the table."""
    reply = REPLIES[reason]
    assert headers["x-kvoy-reason"] == reason
    assert headers["Content-Type"] == "application/json"
    assert status in reply.statuses
    error = json.loads(body)["error"]
    assert error == {
        "message": reply.message,
        "type": reply.type,
        "param": None,
        "code": reason.replace("-", "_"),
    }


async def raw(mesh: Mesh, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """What Envoy answers to bytes that no HTTP client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(mesh.url.rpartition(":")[2]))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {"Content-Type": headers.get("content-type", ""), **headers}, body


async def test_a_server_without_pods_or_with_dead_ones_is_unavailable(mesh):
    await mesh.engines[0].stop()
    check("upstream-unavailable", *await mesh.ask())
    await mesh.offer(mesh.server)
    check("upstream-unavailable", *await mesh.ask())


@pytest.mark.parametrize("said", [b"", b"not http\r\n\r\n"])
async def test_a_pod_that_breaks_off_or_speaks_nonsense_is_unavailable(mesh, said):
    async def break_off(request: web.Request) -> web.StreamResponse:
        request.transport.write(said)
        request.transport.close()
        return web.Response()

    mesh.engines[0].handler = break_off
    check("upstream-unavailable", *await mesh.ask())


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    raise AssertionError("nobody waits so long")


async def test_a_pod_that_does_not_answer_is_a_timeout(mesh):
    mesh.engines[0].handler = hang
    check("upstream-timeout", *await mesh.ask())


async def test_an_engine_that_is_not_asked_without_a_transfer_is_no_partner(start_mesh):
    async def for_another(worker: StubWorker, context: Context) -> None:
        await let_headers_pass(worker, context)
        await context.read()
        answer = decision(worker, "request_body")
        told = {"start": 0, "length": 1, "partners": ",10.0.0.1:1,", "tries": 0, "needed": True}
        answer.dynamic_metadata["kvoy"].update({"transfer": told})
        await context.write(answer)

    apart = Disaggregation("nixl", decode_alone=False)
    async with start_mesh(server=ModelServer("ns", "s", "vLLM", 8000, disaggregation=apart)) as mesh:
        mesh.workers[0].behaviour = for_another
        check("no-partner", *await mesh.ask())


@pytest.mark.parametrize(
    "limit", ["controller.xds.listener.STREAM_IDLE_TIMEOUT", "controller.xds.routes.MAX_DURATION"]
)
async def test_the_longest_silence_and_the_longest_life_are_timeouts_too(start_mesh, monkeypatch, limit):
    monkeypatch.setattr(limit, timedelta(seconds=0.4))
    async with start_mesh() as mesh:
        mesh.engines[0].handler = hang
        check("upstream-timeout", *await mesh.ask())


async def test_workers_that_decide_nothing_make_the_router_unavailable(mesh):
    async def fail(worker: StubWorker, context: Context) -> None:
        await let_headers_pass(worker, context)
        await context.abort(grpc.StatusCode.INTERNAL, "not for clients")

    async def leave(worker: StubWorker, context: Context) -> None:
        await let_headers_pass(worker, context)

    for behaviour in (fail, leave):
        mesh.workers[0].behaviour = behaviour
        check("router-unavailable", *await mesh.ask())
    await mesh.workers[0].stop()
    check("router-unavailable", *await mesh.ask())


async def test_workers_that_hang_make_the_router_unavailable(mesh):
    async def hang(worker: StubWorker, context: Context) -> None:
        await context.read()
        await asyncio.Event().wait()

    mesh.workers[0].behaviour = hang
    check("router-unavailable", *await mesh.ask())


async def test_a_decision_for_a_server_that_envoy_does_not_know_makes_the_router_unavailable(mesh):
    mesh.workers[0].cluster = "model/ns/unknown"
    check("router-unavailable", *await mesh.ask())


async def test_a_body_above_the_limit_is_too_large(start_mesh):
    async with start_mesh(body_limit=2000) as mesh:
        check("body-too-large", *await mesh.ask(data=b"x" * 5000))
        assert mesh.engines[0].seen == []


async def test_what_is_not_http_is_a_bad_request(mesh):
    check("bad-request", *await raw(mesh, b"NONSENSE\r\n\r\n"))
    check("bad-request", *await raw(mesh, b"GET / HTTP/1.1\r\n\r\n"))
    for path in (b"/a%00", b"/a#b"):
        request = b"GET %s HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n" % path
        check("bad-request", *await raw(mesh, request))
    assert mesh.engines[0].seen == []


async def test_headers_above_envoys_limit_are_too_large(mesh):
    check("headers-too-large", *await raw(mesh, b"GET / HTTP/1.1\r\nhost: h\r\nlong: " + b"x" * 61_440))
    assert mesh.engines[0].seen == []


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 502, 503, 504])
async def test_an_engines_own_errors_pass_untouched(mesh, status):
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, text="as the engine says", headers={"x-own": "1"})

    mesh.engines[0].handler = refuse
    found, headers, body = await mesh.ask()
    assert (found, body, headers["x-own"]) == (status, b"as the engine says", "1")
    assert "x-kvoy-reason" not in headers


def test_every_reason_has_its_rule():
    assert len(local_replies().mappers) == len(REPLIES)
    for reply in REPLIES.values():
        assert reply.message.endswith(".")
        assert (reply.type == "invalid_request_error") == all(status < 500 for status in reply.statuses)
