"""The ADS server and the real Envoy: changes are live, nothing is dropped, each side may come and go."""

import asyncio
import signal

from aiohttp import web

from controller.xds.resources import build
from controller.xds.server import Ads
from extproc.state.records import ModelServer, Pod
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


async def test_a_socket_is_served_under_its_very_name(run_dir):
    """gRPC takes what follows a percent sign in an address for a byte in hexadecimal."""
    path = run_dir / "100%41 % x?#é.sock"
    ads = Ads()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(ads.serve(str(path)))
        await until(path.is_socket, "the socket")
        assert list(run_dir.iterdir()) == [path]
        serving.cancel()


async def test_an_envoy_that_hangs_gets_the_last_offer_and_few_before_it(mesh):
    """Each offer is large, so that few fit into the buffers between the two."""
    many = [Pod("ns", f"p{i}", f"127.1.{i // 250}.{i % 250}", ("s",)) for i in range(1000)]
    updates = "cluster.model/ns/s.update_attempt"
    before = await mesh.envoy.stat(updates)
    mesh.envoy.process.send_signal(signal.SIGSTOP)
    try:
        for turn in range(200):
            changing = Pod("ns", "changing", f"127.2.0.{turn}", ("s",))
            records = (mesh.server, changing, *many, *pods(mesh.engines))
            mesh.ads.offer(build({record.key: record for record in records}, mesh.plane))
            await asyncio.sleep(0.002)
        assert not await mesh.ads.accepted(0.2)
    finally:
        mesh.envoy.process.send_signal(signal.SIGCONT)
    assert await mesh.ads.accepted(DEADLINE_S)
    assert 0 < await mesh.envoy.stat(updates) - before < 100
    assert "::127.2.0.199:8000::" in await mesh.envoy.get("/clusters")
    assert (await mesh.ask())[0] == 200


async def test_an_envoy_that_does_not_answer_has_not_accepted(mesh):
    mesh.envoy.process.send_signal(signal.SIGSTOP)
    mesh.ads.offer(build({mesh.server.key: mesh.server}, mesh.plane))
    assert not await mesh.ads.accepted(0.2)
    mesh.envoy.process.send_signal(signal.SIGCONT)
    assert await mesh.ads.accepted(DEADLINE_S)
    assert (await mesh.ask())[0] == 503
