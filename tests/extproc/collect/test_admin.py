import pytest
from aiohttp.test_utils import TestClient, TestServer

from extproc.collect.admin import PATHS, Admin
from extproc.collect.counters import Counters


@pytest.fixture
def told():
    return {"ready": True}


@pytest.fixture
async def client(told):
    admin = Admin(lambda: told["ready"], lambda: {"pods": {"default/a": []}}, Counters())
    async with TestClient(TestServer(admin.app())) as client:
        yield client


async def test_every_listed_path_is_served(client):
    for path in PATHS:
        assert (await client.get(path)).status == 200, path


async def test_readiness_is_told(client, told):
    told["ready"] = False

    assert (await client.get("/readyz")).status == 503
    assert (await client.get("/healthz")).status == 200


async def test_metrics_are_prometheus_text(client):
    response = await client.get("/metrics")

    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "kvoy_collector_scrape_seconds_count" in await response.text()


async def test_the_state_is_json(client):
    assert await (await client.get("/debug/state")).json() == {"pods": {"default/a": []}}
