"""The public listener, on the real Envoy."""

import asyncio
import io

import pytest
from aiohttp import web

from controller.xds.listener import public_listener
from controller.xds.plane import DataPlane
from tests.controller.xds.mesh import Mesh


async def test_a_body_up_to_the_limit_is_routed_and_one_above_is_not(start_mesh):
    async with start_mesh(body_limit=5 * 2**20) as mesh:
        assert (await mesh.ask(data=io.BytesIO(b"x" * 5 * 2**20)))[0] == 200
        assert len(mesh.engines[0].bodies[0]) == 5 * 2**20
        status, headers, _ = await mesh.ask(data=io.BytesIO(b"x" * (5 * 2**20 + 1)))
        assert (status, headers["x-kvoy-reason"]) == (413, "body-too-large")
        assert len(mesh.engines[0].bodies) == 1


async def test_the_request_id_is_ours_and_the_same_everywhere(mesh):
    sent = {"x-request-id": "the client's", "x-forwarded-for": "10.0.0.1"}
    _, headers, _ = await mesh.ask(headers=sent)
    ours = headers["X-Request-ID"]
    assert ours != "the client's"
    assert mesh.workers[0].asked[0]["x-request-id"] == mesh.engines[0].seen[0]["X-Request-ID"] == ours


async def paths_seen(mesh: Mesh, path: str) -> tuple[bytes, list[str], list[str]]:
    """The head of the answer to `path`, sent as it is, and the paths that worker and engine saw."""
    seen = []

    async def remember(request: web.Request) -> web.Response:
        seen.append(request.raw_path)
        return web.Response()

    mesh.engines[0].handler = remember
    reader, writer = await asyncio.open_connection("127.0.0.1", int(mesh.url.rpartition(":")[2]))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
    head = await reader.read()
    writer.close()
    await writer.wait_closed()
    return head, [headers[":path"] for headers in mesh.workers[0].asked], seen


@pytest.mark.parametrize(
    "path", ["/v1/models", "/a%20b/caf%C3%A9?q=%20", "/a?q=//b/../%2F", "/a;b=1/", "/a%252Fb"]
)
async def test_a_path_reaches_the_engine_as_the_client_wrote_it(mesh, path):
    head, asked, seen = await paths_seen(mesh, path)

    assert head.startswith(b"HTTP/1.1 200 ")
    assert asked == seen == [path]


@pytest.mark.parametrize(
    "path",
    ["//v1/chat/completions", "/v1/./chat//completions", "/x/../v1/chat/completions",
     "/../v1/chat/completions", "/%2e%2E/v1/%2e/chat/completions", "/v1/ch%61t/completions",
     "/v1\\chat/completions", "http://h//v1/chat/completions"],
)  # fmt: skip
async def test_another_spelling_of_a_path_is_no_other_path(mesh, path):
    head, asked, seen = await paths_seen(mesh, path)

    assert head.startswith(b"HTTP/1.1 200 ")
    assert asked == seen == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/v1/chat%2Fcompletions", "/v1/chat/completions"),
        ("/v1%5cchat%2f/completions?q=%2F", "/v1/chat/completions?q=%2F"),
        ("/v1/models/org%2Fname", "/v1/models/org/name"),
        ("/%2F%5Cevil.test/x", "/evil.test/x"),
    ],
)
async def test_an_escaped_slash_is_redirected_to_a_slash_and_nobody_is_asked(mesh, path, to):
    head, asked, seen = await paths_seen(mesh, path)

    assert head.startswith(b"HTTP/1.1 307 ")
    assert f"\r\nlocation: {to}\r\n".encode() in head
    assert b"x-kvoy-reason" not in head
    assert asked == seen == []


async def test_server_sent_events_arrive_one_by_one_unchanged(mesh):
    turns: asyncio.Queue[bytes] = asyncio.Queue()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        while event := await turns.get():
            await response.write(event)
        return response

    mesh.engines[0].handler = stream
    async with mesh.post() as answer:
        for event in (b'data: {"n": 1}\n\n', b": comment\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"):
            turns.put_nowait(event)
            assert await answer.content.readany() == event
        turns.put_nowait(b"")
        assert await answer.read() == b""


async def test_many_slow_streams_at_once_meet_no_limit(mesh):
    everyone, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        everyone.release()
        await go_on.wait()
        return response

    async def ask() -> int:
        return (await mesh.ask())[0]

    mesh.engines[0].handler = slow
    mesh.client.connector._limit = 0
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask()) for _ in range(300)]
        for _ in range(300):
            await everyone.acquire()
        go_on.set()
    assert {task.result() for task in asked} == {200}


@pytest.mark.parametrize(("limit", "buffer"), [(2000, 2000), (16 * 2**20, 2**20)])
def test_a_limit_below_the_usual_buffer_lowers_the_buffer(limit, buffer):
    plane = DataPlane("[::]:8080", (("extproc-0", "/run/0.sock"),), limit)
    assert public_listener(plane).per_connection_buffer_limit_bytes == buffer
