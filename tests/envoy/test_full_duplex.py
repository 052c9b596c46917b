"""A foreign gateway that streams bodies (FULL_DUPLEX_STREAMED) is served by the same workers."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from benchmarks.overhead.targets import listener_port, running_envoy
from tests.envoy.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

TYPES = "type.googleapis.com/envoy.extensions"
CHAT = "/v1/chat/completions"


def gateway(worker_socket: str, engine_port: int) -> dict[str, Any]:
    """Envoy as an InferencePool gateway sets it up: body in full duplex, endpoint by metadata."""
    worker = {"envoy_grpc": {"cluster_name": "worker"}}
    ext_proc = {
        "@type": f"{TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": worker,
        "processing_mode": {
            "request_header_mode": "SEND",
            "request_body_mode": "FULL_DUPLEX_STREAMED",
            "request_trailer_mode": "SEND",
            "response_header_mode": "SKIP",
            "response_body_mode": "NONE",
            "response_trailer_mode": "SKIP",
        },
        "metadata_options": {"receiving_namespaces": {"untyped": ["envoy.lb", "kvoy"]}},
    }
    access_log = {
        "@type": f"{TYPES}.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "common_config": {
            "log_name": "gateway",
            "grpc_service": worker,
            "transport_api_version": "V3",
            "buffer_flush_interval": "0.1s",
        },
    }
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "access_log": [{"name": "log", "typed_config": access_log}],
        "http_filters": [
            {"name": "ext_proc", "typed_config": ext_proc},
            {"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "pods", "timeout": "0s"}}],
                }
            ]
        },
    }
    return {
        "admin": {"address": tcp(0)},
        "static_resources": {
            "listeners": [
                {
                    "name": "gateway",
                    "address": tcp(0),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                cluster("worker", {"pipe": {"path": worker_socket}}, h2=True),
                cluster("pods", tcp(engine_port)),
            ],
        },
    }


def tcp(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name: str, address: dict[str, Any], *, h2: bool = False) -> dict[str, Any]:
    options = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        **(
            {
                "typed_extension_protocol_options": {
                    f"{TYPES}.upstreams.http.v3.HttpProtocolOptions".removeprefix(
                        "type.googleapis.com/"
                    ): options
                }
            }
            if h2
            else {}
        ),
    }


@pytest_asyncio.fixture(loop_scope="session")
async def duplex(world: World, tmp_path: Path) -> AsyncIterator[str]:
    """URL of a gateway in front of the big engine, asking worker 0."""
    (pid,) = world.workers("extproc-0")
    arguments = world.stack.processes()[pid].split()
    socket = arguments[arguments.index("--socket") + 1]
    async with running_envoy(tmp_path, gateway(socket, world.engines["big"].port)) as (_, admin):
        yield f"http://127.0.0.1:{await listener_port(admin)}"
        await until(world.idle)


async def ask(world: World, url: str, body: dict[str, Any], path: str = CHAT) -> tuple[int, bytes]:
    data = io.BytesIO(json.dumps(body).encode())
    async with world.session.post(url + path, data=data, headers={"user-type": "premium"}) as response:
        return response.status, await response.read()


@pytest.mark.parametrize("size", [10, 60_000, 300_000])
async def test_bodies_of_any_size_arrive_whole_and_rewritten(world: World, duplex: str, size: int) -> None:
    message = {"role": "user", "content": "x" * size}

    status, _ = await ask(world, duplex, {"model": "deepseek-r1", "messages": [message], "max_tokens": 1})

    assert status == 200
    sent = json.loads((await world.engines["big"].requests())[-1].body)
    assert sent == {"model": "vendor/big", "messages": [message], "max_tokens": 1}


async def test_errors_are_answered(world: World, duplex: str) -> None:
    status, body = await ask(world, duplex, {"model": "nobody-serves-this", "messages": []})

    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")


async def test_a_body_that_is_not_parsed_passes_in_chunks(world: World, duplex: str) -> None:
    status, body = await ask(world, duplex, {"model": "vendor/big", "prompt": "x" * 200_000}, "/tokenize")

    assert (status, json.loads(body)["count"] > 1000) == (200, True)


async def test_a_get_without_a_body_is_routed(world: World, duplex: str) -> None:
    async with world.session.get(duplex + "/version", headers={"user-type": "premium"}) as response:
        assert response.status == 200


async def test_a_client_that_trickles_its_body_is_served(world: World, duplex: str) -> None:
    body = json.dumps(
        {"model": "deepseek-r1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    )

    async def trickle() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 20):
            yield body[at : at + 20].encode()
            await asyncio.sleep(0.005)

    headers = {"user-type": "premium", "content-type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(duplex + CHAT, data=trickle(), headers=headers) as response,
    ):
        assert response.status == 200
