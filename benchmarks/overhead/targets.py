"""What is measured: an engine behind Envoy alone, and the same engine behind Envoy and kvoy."""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.stack import kvoy_up
from controller.up.binaries import envoy

_GROUP = "networking.serving.volcano.sh/v1alpha1"
_READY_S = 20.0


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway to load, and whose CPU counts."""

    mode: str
    host: str
    port: int
    envoy_pids: tuple[int, ...]
    service_pids: tuple[int, ...] = ()


@asynccontextmanager
async def an_engine() -> AsyncIterator[int]:
    """The benchmark's engine in a process of its own; yields its port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.overhead.backend", "127.0.0.1", "0"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline())
    finally:
        await _kill(process)


@asynccontextmanager
async def envoy_alone(engine: int) -> AsyncIterator[Target]:
    """One Envoy worker thread with a plain route to the engine."""
    with tempfile.TemporaryDirectory(prefix="kvoy-bench-") as folder:
        async with running_envoy(Path(folder), _plain(engine)) as (pid, admin):
            yield Target("envoy", "127.0.0.1", await listener_port(admin), (pid,))


@asynccontextmanager
async def envoy_with_kvoy(engine: int, workers: int) -> AsyncIterator[Target]:
    """`kvoy up` with one ModelServer and the engine as its pod; it runs one Envoy thread per worker."""
    with tempfile.TemporaryDirectory(prefix="kvoy-bench-") as folder:
        (Path(folder) / "bench.yaml").write_text(yaml.safe_dump_all(_manifests(engine)))
        async with kvoy_up(Path(folder), "--workers", str(workers)) as stack:
            host, _, port = stack.url.removeprefix("http://").rpartition(":")
            envoys, services = stack.pids("--disable-hot-restart"), stack.pids("-m extproc ")
            yield Target("envoy+kvoy", host, int(port), tuple(envoys), tuple(services))


@asynccontextmanager
async def running_envoy(folder: Path, config: dict[str, Any]) -> AsyncIterator[tuple[int, Path]]:
    """Envoy with a static configuration and one thread; yields its pid and a file with its admin address."""
    written, admin = folder / "envoy.json", folder / "admin"
    written.write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        *(envoy(), "-c", str(written), "--concurrency", "1", "--disable-hot-restart"),
        *("--log-level", "error", "--admin-address-path", str(admin)),
    )
    try:
        yield process.pid, admin
    finally:
        await _kill(process)


async def listener_port(admin_file: Path) -> int:
    """Envoy's listener port, asked from its admin endpoint once it has written where that is."""
    async with asyncio.timeout(_READY_S), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://{admin_file.read_text()}/listeners?format=json") as answer:
                    listeners = (await answer.json())["listener_statuses"]
                    return int(listeners[0]["local_address"]["socket_address"]["port_value"])
            except (OSError, ValueError, LookupError, aiohttp.ClientError):
                await asyncio.sleep(0.05)


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def _manifests(engine: int) -> list[dict[str, Any]]:
    labels = {"app": "bench"}
    meta = {"name": "bench", "namespace": "default"}
    server = {"modelServerName": "bench"}
    return [
        {
            "apiVersion": _GROUP,
            "kind": "ModelRoute",
            "metadata": meta,
            "spec": {"modelName": "bench", "rules": [{"targetModels": [server]}]},
        },
        {
            "apiVersion": _GROUP,
            "kind": "ModelServer",
            "metadata": meta,
            "spec": {
                "model": "bench-upstream",
                "inferenceEngine": "vLLM",
                "workloadSelector": {"matchLabels": labels},
                "workloadPort": {"port": engine},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**meta, "labels": labels},
            "status": {"phase": "Running", "podIP": "127.0.0.1"},
        },
    ]


def _plain(engine: int) -> dict[str, Any]:
    """Envoy's static configuration: one listener on a free port, one route, one endpoint."""
    filters = [{"name": "http", "typed_config": _connections()}]
    listener = {"name": "bench", "address": _address(0), "filter_chains": [{"filters": filters}]}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(engine)}}]}]
    cluster = {
        "name": "engine",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "engine", "endpoints": endpoints},
    }
    return {
        "admin": {"address": _address(0)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _connections() -> dict[str, Any]:
    """The connection manager: everything goes to the engine."""
    types = "type.googleapis.com/envoy.extensions.filters"
    everything = {"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "0s"}}
    return {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [everything]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}],
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
