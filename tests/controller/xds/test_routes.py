"""Timeouts and retries of a ModelServer, on the real Envoy."""

import asyncio

import pytest
from aiohttp import web

from controller.xds.routes import server_route
from extproc.state.records import Disaggregation, ModelServer, Retry

QUICK = ModelServer("ns", "s", "vLLM", 8000, timeout_s=0.4, retry=Retry(attempts=1, interval_s=0.005))


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    raise AssertionError("nobody waits so long")


async def test_a_pod_that_hangs_is_left_for_the_next(start_mesh):
    async with start_mesh(server=QUICK, engines=2) as mesh:
        mesh.engines[0].handler = hang
        status, _, body = await mesh.ask()
        assert (status, body) == (200, b'{"served_by": "engine-1"}')


async def test_after_the_last_attempt_a_hang_is_a_504(start_mesh):
    async with start_mesh(server=QUICK) as mesh:
        mesh.engines[0].handler = hang
        status, headers, _ = await mesh.ask()
        assert (status, headers["x-kvoy-reason"]) == (504, "upstream-timeout")
        assert len(mesh.engines[0].seen) == 2


async def test_without_retries_one_attempt_is_all(start_mesh):
    server = ModelServer("ns", "s", "vLLM", 8000, timeout_s=0.4, retry=Retry(attempts=0))
    async with start_mesh(server=server, engines=2) as mesh:
        mesh.engines[0].handler = hang
        assert (await mesh.ask())[0] == 504
        assert [len(engine.seen) for engine in mesh.engines] == [1, 0]


async def test_a_stream_may_last_longer_than_the_timeout(start_mesh):
    async def slow_stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for i in range(8):
            await response.write(b"data: %d\n\n" % i)
            await asyncio.sleep(0.15)
        return response

    async with start_mesh(server=QUICK) as mesh:
        mesh.engines[0].handler = slow_stream
        status, _, body = await mesh.ask()
        assert status == 200
        assert body == b"".join(b"data: %d\n\n" % i for i in range(8))


async def test_a_pod_that_resets_before_it_answers_is_left_for_the_next(start_mesh):
    async with start_mesh(server=QUICK, engines=2) as mesh:
        mesh.engines[0].handler = reset
        status, _, body = await mesh.ask()
        assert (status, body) == (200, b'{"served_by": "engine-1"}')


async def test_what_steers_envoy_does_not_reach_the_engine(mesh):
    await mesh.ask()
    (headers,) = mesh.engines[0].seen
    assert not [name for name in headers if name.lower().startswith(("x-kvoy-", "x-gateway-"))]


TOLD = "pod=ns/engine-0 score=0.93 cached=1024/1500"


async def forge(_: web.Request) -> web.StreamResponse:
    return web.Response(text="engine", headers={"x-kvoy-decision": "of an engine"})


async def test_clients_are_told_the_decision_where_that_is_wanted(start_mesh):
    async with start_mesh(decision_header=True) as mesh:
        mesh.workers[0].told = TOLD
        mesh.engines[0].handler = forge
        async with mesh.post() as answer:
            assert answer.headers.getall("x-kvoy-decision") == [TOLD]


async def test_a_decision_is_told_with_an_error_too(start_mesh):
    async with start_mesh(decision_header=True) as mesh:
        mesh.workers[0].told = TOLD
        mesh.route_to("127.0.0.1:1")
        await mesh.engines[0].stop()
        status, headers, _ = await mesh.ask()
        assert (status, headers.get("x-kvoy-decision")) == (503, TOLD)


async def test_where_nothing_was_said_of_a_decision_there_is_no_header(start_mesh):
    async with start_mesh(decision_header=True) as mesh:
        mesh.engines[0].handler = forge
        status, headers, body = await mesh.ask()
        assert (status, body) == (200, b"engine")
        assert "x-kvoy-decision" not in headers


async def test_clients_are_not_told_the_decision_unless_that_is_wanted(mesh):
    mesh.workers[0].told = TOLD
    mesh.engines[0].handler = forge
    status, headers, body = await mesh.ask()
    assert (status, body) == (200, b"engine")
    assert "x-kvoy-decision" not in headers


def apart(connector: str, timeout_s: float | None = None) -> ModelServer:
    disaggregation = Disaggregation(connector, prefill_timeout_s=0.1)
    retry = Retry(attempts=2, interval_s=0.005)
    return ModelServer(
        "ns", "s", "vLLM", 8000, timeout_s=timeout_s, retry=retry, disaggregation=disaggregation
    )


async def internal_error(_: web.Request) -> web.Response:
    return web.Response(status=500, text="as the engine says")


async def reset(request: web.Request) -> web.StreamResponse:
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("connector", ["http", "lmcache", "nixl", "nixl-push", "mooncake", "sidecar"])
async def test_a_transfer_that_failed_is_left_for_the_next(start_mesh, connector):
    async with start_mesh(server=apart(connector), engines=3) as mesh:
        mesh.engines[0].handler, mesh.engines[1].handler = internal_error, reset
        status, _, body = await mesh.ask()
        assert (status, body) == (200, b'{"served_by": "engine-2"}')


async def test_an_engines_500_is_its_answer_where_nothing_is_transferred(start_mesh):
    async with start_mesh(engines=2) as mesh:
        mesh.engines[0].handler = internal_error
        status, _, body = await mesh.ask()
        assert (status, body) == (500, b"as the engine says")


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_engines_that_began_as_a_pair_are_not_replaced_by_one(start_mesh, status):
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, text="as the engine says")

    async with start_mesh(server=apart("sglang"), engines=2) as mesh:
        mesh.engines[0].handler = refuse
        found, _, body = await mesh.ask()
        assert (found, body) == (status, b"as the engine says")
        mesh.engines[0].handler = reset
        found, headers, _ = await mesh.ask()
        assert (found, headers["x-kvoy-reason"]) == (503, "upstream-unavailable")
        assert mesh.engines[1].seen == []


async def test_but_they_are_where_the_first_was_never_reached(start_mesh):
    async with start_mesh(server=apart("sglang"), engines=2) as mesh:
        await mesh.engines[0].stop()
        status, _, body = await mesh.ask()
        assert (status, body) == (200, b'{"served_by": "engine-1"}')


@pytest.mark.parametrize(("interval_s", "milliseconds"), [(0.025, 25), (0, 1)])
def test_the_pause_between_attempts_is_never_shorter_than_envoy_takes(interval_s, milliseconds):
    policy = server_route(ModelServer("ns", "s", "vLLM", 80, retry=Retry(3, interval_s))).route.retry_policy
    assert policy.retry_back_off.base_interval.total_seconds() * 1000 == milliseconds
    assert policy.num_retries == 3


def test_without_a_timeout_an_attempt_may_take_as_long_as_it_wants():
    action = server_route(ModelServer("ns", "s", "vLLM", 80)).route
    assert action.retry_policy.per_try_timeout is None
    assert action.timeout.total_seconds() == 0
