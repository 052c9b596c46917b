"""The clusters of ModelServers: the worker's list is what counts."""

import io

from aiohttp import web

from controller.xds.clusters import model_cluster, nowhere_cluster
from extproc.state.records import Disaggregation, ModelServer, Retry
from tests.controller.xds.mesh import Mesh, pods

SERVER = ModelServer("ns", "s", "vLLM", 8000, retry=Retry(attempts=2, interval_s=0.005))


async def unavailable(_: web.Request) -> web.Response:
    return web.Response(status=503, text="starting")


def served(mesh: Mesh) -> list[int]:
    """Requests that each engine got."""
    return [len(engine.seen) for engine in mesh.engines]


async def test_the_first_of_the_list_serves_and_the_log_names_it(start_mesh):
    async with start_mesh(server=SERVER, engines=3) as mesh:
        mesh.route_to(mesh.engines[2].address, mesh.engines[0].address)
        for _ in range(4):
            assert (await mesh.ask())[0] == 200
        assert served(mesh) == [0, 0, 4]
        for entry in await mesh.entries(4):
            fields = entry.common_properties.metadata.filter_metadata["envoy.lb"].fields
            assert fields["x-gateway-destination-endpoint-served"].string_value == mesh.engines[2].address


async def test_a_dead_pod_and_one_that_answers_503_are_passed_over_in_order(start_mesh):
    async with start_mesh(server=SERVER, engines=4) as mesh:
        mesh.engines[1].handler = unavailable
        await mesh.engines[3].stop()
        mesh.route_to(*(mesh.engines[i].address for i in (3, 1, 0, 2)))
        status, _, body = await mesh.ask(data=io.BytesIO(b"x" * 5_000_000))
        assert (status, body) == (200, b'{"served_by": "engine-0"}')
        assert served(mesh)[:3] == [1, 1, 0]
        assert mesh.engines[0].bodies == mesh.engines[1].bodies
        (entry,) = await mesh.entries(1)
        assert entry.common_properties.upstream_request_attempt_count == 3
        fields = entry.common_properties.metadata.filter_metadata["envoy.lb"].fields
        assert fields["x-gateway-destination-endpoint-served"].string_value == mesh.engines[0].address


async def test_an_address_outside_the_cluster_is_skipped(start_mesh):
    async with start_mesh(server=SERVER, engines=2) as mesh:
        await mesh.offer(mesh.server, *pods(mesh.engines[:1]))
        mesh.route_to(mesh.engines[1].address, "not an address", mesh.engines[0].address)
        assert (await mesh.ask())[0] == 200
        assert served(mesh) == [1, 0]


async def test_without_a_list_envoy_chooses_a_pod_itself(start_mesh):
    async with start_mesh(server=SERVER, engines=2) as mesh:
        mesh.route_to()
        assert (await mesh.ask())[0] == 200
        assert sum(served(mesh)) == 1


async def test_an_engines_own_error_is_passed_on_when_no_endpoint_is_better(start_mesh):
    async with start_mesh(server=SERVER) as mesh:
        mesh.engines[0].handler = unavailable
        status, headers, body = await mesh.ask()
        assert (status, body) == (503, b"starting")
        assert "x-kvoy-reason" not in headers
        assert served(mesh) == [3]


def test_only_metadata_names_endpoints():
    (policy,) = model_cluster(SERVER).load_balancing_policy.policies
    (source,) = policy.typed_extension_config.typed_config.unpack().override_host_sources
    assert source.header == ""
    assert (source.metadata.key, source.metadata.path[0].key) == (
        "envoy.lb",
        "x-gateway-destination-endpoint",
    )


def test_http_without_tls_unless_the_server_says_so():
    assert model_cluster(SERVER).transport_socket is None


def filters(server: ModelServer) -> list[str]:
    (options,) = model_cluster(server).typed_extension_protocol_options.values()
    return [each.name for each in options.unpack().http_filters]


def test_attempts_pass_filters_only_where_prefill_and_decode_are_apart():
    apart = ModelServer("ns", "s", "vLLM", 8000, disaggregation=Disaggregation("nixl"))
    assert filters(apart) == ["kvoy.attempt", "kvoy.transfers", "envoy.filters.http.upstream_codec"]
    assert filters(SERVER) == []


def test_nowhere_has_no_endpoints():
    assert nowhere_cluster().load_assignment.endpoints == []
