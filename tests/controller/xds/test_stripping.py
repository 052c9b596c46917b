"""A client cannot steer Envoy or kvoy by headers."""

import pytest
from aiohttp import web

from extproc.state.records import ModelServer
from tests.controller.xds.mesh import pods


async def test_a_clients_copies_of_steering_headers_are_gone_before_a_worker_sees_them(mesh):
    headers = {
        "X-Kvoy-Cluster": "model/ns/other",
        "x-kvoy-anything": "1",
        "x-gateway-destination-endpoint": "127.0.0.1:1",
        "x-gateway-destination-endpoint-subset": "127.0.0.1:1",
        "x-prefiller-host-port": "127.0.0.1:1",
        "X-Prefiller-Host-Port-Alternative": "127.0.0.1:1",
        "x-kvoy-client-request-id": "somebody else's",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
        "x-kept": "yes",
    }
    status, _, body = await mesh.ask(headers=headers)
    assert (status, body) == (200, b'{"served_by": "engine-0"}')
    (asked,) = mesh.workers[0].asked
    (seen,) = mesh.engines[0].seen
    for name in headers:
        if name != "x-kept":
            assert name.lower() not in asked
            assert name.lower() not in {each.lower() for each in seen}
    assert asked["x-kept"] == seen["x-kept"] == "yes"


async def test_a_client_that_names_a_cluster_does_not_skip_the_worker(start_mesh):
    async with start_mesh(engines=2) as mesh:
        other = ModelServer("ns", "other", "vLLM", 8000)
        await mesh.offer(mesh.server, other, *pods(mesh.engines[:1]), *pods(mesh.engines[1:], server="other"))
        mesh.route_to(mesh.engines[0].address)
        for _ in range(3):
            _, _, body = await mesh.ask(headers={"x-kvoy-cluster": "model/ns/other"})
            assert body == b'{"served_by": "engine-0"}'
        assert len(mesh.workers[0].asked) == 3


async def test_what_steers_only_an_engine_is_left_to_the_worker(mesh):
    await mesh.ask(headers={"x-data-parallel-rank": "3"})
    assert mesh.workers[0].asked[0]["x-data-parallel-rank"] == "3"


async def test_the_clients_request_id_is_kept_under_another_name(mesh):
    headers = {"x-request-id": "the client's", "x-kvoy-client-request-id": "somebody else's"}
    _, answered, _ = await mesh.ask(headers=headers)
    (asked,), (seen,) = mesh.workers[0].asked, mesh.engines[0].seen
    assert asked["x-kvoy-client-request-id"] == seen["x-kvoy-client-request-id"] == "the client's"
    assert asked["x-request-id"] == seen["X-Request-ID"] == answered["X-Request-ID"] != "the client's"


@pytest.mark.parametrize("headers", [{}, {"x-request-id": ""}])
async def test_nothing_is_kept_where_the_client_named_none(mesh, headers):
    assert (await mesh.ask(headers=headers))[0] == 200
    assert "x-kvoy-client-request-id" not in mesh.workers[0].asked[0]
    assert mesh.workers[0].asked[0]["x-request-id"]


@pytest.mark.parametrize("value", ["%REQ(:PATH)%", "a, b", '"\u20ac"', "x" * 5000])
async def test_an_odd_request_id_is_kept_as_it_is(mesh, value):
    assert (await mesh.ask(headers={"x-request-id": value}))[0] == 200
    assert mesh.engines[0].seen[0]["x-kvoy-client-request-id"] == value


async def test_an_engine_that_repeats_the_clients_request_id_tells_no_client(mesh):
    async def repeat(request: web.Request) -> web.StreamResponse:
        name = "x-kvoy-client-request-id"
        return web.Response(headers={name: request.headers[name]})

    mesh.engines[0].handler = repeat
    status, answered, _ = await mesh.ask(headers={"x-request-id": "the client's"})
    assert status == 200
    assert "x-kvoy-client-request-id" not in answered
