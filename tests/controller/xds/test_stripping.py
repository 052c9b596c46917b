"""A client cannot steer Envoy or kvoy by headers."""

from extproc.state.records import ModelServer
from tests.controller.xds.mesh import pods


async def test_a_clients_copies_of_steering_headers_are_gone_before_a_worker_sees_them(mesh):
    headers = {
        "X-Kvoy-Cluster": "model/ns/other",
        "x-kvoy-anything": "1",
        "x-gateway-destination-endpoint": "127.0.0.1:1",
        "x-gateway-destination-endpoint-subset": "127.0.0.1:1",
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
