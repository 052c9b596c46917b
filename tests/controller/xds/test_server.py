"""The ADS server and the real Envoy: changes are live, nothing is dropped, each side may come and go."""

import asyncio

from aiohttp import web

from controller.xds.resources import build
from controller.xds.server import Ads
from extproc.state.records import ModelServer
from tests.controller.xds.mesh import DEADLINE_S, pods, until

OTHER = ModelServer("ns", "other", "vLLM", 8000)
UPDATES = r"cluster_manager.cds.update_attempt", r"listener_manager.lds.update_attempt"


async def in_two_parts(go_on: asyncio.Event, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one ")
    await go_on.wait()
    await response.write(b"two")
    return response


async def test_pods_come_and_go_under_load_without_a_lost_request(start_mesh):
    async with start_mesh(engines=3) as mesh:
        before = [await mesh.envoy.stat(name) for name in UPDATES]
        done = asyncio.Event()
        statuses = []

        async def ask_on() -> None:
            while not done.is_set():
                statuses.append((await mesh.ask())[0])

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(ask_on())
            for kept in (1, 2, 3, 1, 3):
                await mesh.offer(mesh.server, *pods(mesh.engines[:kept]))
                mesh.route_to(*(engine.address for engine in mesh.engines[kept - 1 :: -1]))
                seen = len(statuses)
                await until(lambda seen=seen: len(statuses) > seen + 20, "twenty more answers")
            done.set()
        assert set(statuses) == {200}
        assert all(engine.seen for engine in mesh.engines)
        assert [await mesh.envoy.stat(name) for name in UPDATES] == before


async def test_a_stream_outlives_its_pod_and_its_model_server(start_mesh):
    go_on = asyncio.Event()
    async with start_mesh() as mesh:
        mesh.engines[0].handler = lambda request: in_two_parts(go_on, request)
        async with mesh.post() as answer:
            assert await answer.content.readexactly(4) == b"one "
            await mesh.offer(mesh.server)
            await mesh.offer(OTHER)
            assert (await mesh.ask())[0] == 503
            go_on.set()
            assert await answer.read() == b"two"


async def test_a_new_model_server_is_routed_as_soon_as_it_is_accepted(start_mesh):
    async with start_mesh(engines=2) as mesh:
        for _ in range(3):
            await mesh.offer(mesh.server, *pods(mesh.engines[:1]))
            await mesh.offer(
                mesh.server, OTHER, *pods(mesh.engines[:1]), *pods(mesh.engines[1:], server="other")
            )
            mesh.workers[0].cluster = "model/ns/other"
            mesh.workers[0].endpoints = mesh.engines[1].address
            status, _, body = await mesh.ask()
            assert (status, body) == (200, b'{"served_by": "engine-1"}')


async def test_envoy_serves_on_without_a_controller_and_catches_up_with_the_next(start_mesh):
    async with start_mesh(engines=2) as mesh:
        await mesh.stop_ads()
        assert (await mesh.ask())[0] == 200
        mesh.ads = Ads()
        mesh.start_ads()
        await asyncio.sleep(0.3)
        assert (await mesh.ask())[0] == 200, "a controller that has nothing yet takes nothing away"
        mesh.ads.offer(build({r.key: r for r in (mesh.server, *pods(mesh.engines[1:]))}, mesh.plane))
        mesh.route_to()
        await until(lambda: mesh.ads.connected, "Envoy to come back")
        assert await mesh.ads.accepted(DEADLINE_S)
        _, _, body = await mesh.ask()
        assert body == b'{"served_by": "engine-1"}'


async def test_without_an_envoy_every_offer_is_accepted(run_dir):
    ads = Ads()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(ads.serve(str(run_dir / "xds.sock")))
        assert await ads.accepted(0)
        serving.cancel()


async def test_an_envoy_that_does_not_answer_has_not_accepted(mesh):
    mesh.envoy.process.send_signal(19)
    mesh.ads.offer(build({mesh.server.key: mesh.server}, mesh.plane))
    assert not await mesh.ads.accepted(0.2)
    mesh.envoy.process.send_signal(18)
    assert await mesh.ads.accepted(DEADLINE_S)
    assert (await mesh.ask())[0] == 503
