"""The access log: each worker hears of the requests that it decided, and of no others."""

import asyncio

from aiohttp import web

from tests.controller.xds.mesh import until
from tests.controller.xds.stub_worker import StubWorker, decision, let_headers_pass


async def test_each_worker_gets_the_entries_of_its_own_requests(start_mesh):
    async with start_mesh(workers=3) as mesh:
        await asyncio.gather(*(mesh.ask() for _ in range(30)))
        await mesh.entries(30)
        for worker in mesh.workers:
            assert worker.bodies
            assert len(worker.entries) == len(worker.bodies)
            for entry in worker.entries:
                fields = entry.common_properties.metadata.filter_metadata["kvoy"].fields
                found = {key: value.string_value for key, value in fields.items()}
                assert found == {"worker": worker.name, "instance": "i-1", "reservation": "r-1"}


async def test_an_entry_tells_how_the_request_went(mesh):
    _, headers, _ = await mesh.ask()
    (entry,) = await mesh.entries(1)
    common = entry.common_properties
    assert entry.response.response_code.value == 200
    assert entry.response.response_code_details == "via_upstream"
    assert entry.request.path == "/v1/chat/completions"
    assert entry.request.request_id == headers["X-Request-ID"]
    assert common.upstream_cluster == "model/ns/s"
    assert common.upstream_remote_address.socket_address.port_value == mesh.engines[0].port
    assert common.upstream_request_attempt_count == 1
    first = common.time_to_first_upstream_rx_byte.ToNanoseconds()
    assert 0 < first <= common.duration.ToNanoseconds()


async def test_a_client_that_leaves_is_told_at_once(mesh):
    began = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        began.set()
        await asyncio.sleep(60)
        return response

    mesh.engines[0].handler = endless
    async with mesh.post() as answer:
        await answer.content.readline()
        assert mesh.workers[0].entries == []
    (entry,) = await mesh.entries(1)
    assert entry.common_properties.response_flags.downstream_connection_termination
    assert entry.response.response_code.value == 200


async def test_an_engine_that_breaks_off_has_its_entry_too(mesh):
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        request.transport.abort()
        return response

    mesh.engines[0].handler = broken
    async with mesh.post() as answer:
        assert answer.status == 200
        await until(lambda: mesh.workers[0].entries, "the entry")
    (entry,) = mesh.workers[0].entries
    assert entry.response.response_code_details.startswith("upstream_reset_after_response_started")


async def test_a_request_that_envoy_fails_itself_has_its_entry_too(mesh):
    await mesh.engines[0].stop()
    assert (await mesh.ask())[0] == 503
    (entry,) = await mesh.entries(1)
    assert entry.response.response_code.value == 503


async def test_a_request_that_nobody_decided_has_no_entry(mesh):
    async def decide_for_nobody(worker: StubWorker, context) -> None:
        await let_headers_pass(worker, context)
        await context.read()
        answer = decision(worker, "request_body")
        answer.dynamic_metadata.fields["kvoy"].struct_value.fields["worker"].string_value = "another"
        await context.write(answer)

    mesh.workers[0].behaviour = decide_for_nobody
    assert (await mesh.ask())[0] == 200
    mesh.workers[0].behaviour = None
    await mesh.ask()
    assert len(await mesh.entries(1)) == 1
    assert len(mesh.engines[0].seen) == 2
