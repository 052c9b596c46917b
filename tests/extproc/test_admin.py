from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from extproc.admin import PATHS, Admin
from extproc.explain import Journal
from extproc.metrics import Metrics
from extproc.rejection import Rejection
from extproc.reservations import Reservations
from extproc.testing import a_head, a_pod, a_route, a_rule, a_server, a_snapshot

SNAPSHOT = a_snapshot(a_route("r", a_rule("s"), model="m"), a_server("s"), a_pod("a", "s"), a_pod("b", "s"))


class Worker:
    """What an admin endpoint shows."""

    def __init__(self) -> None:
        self.ready = True
        self.reservations = Reservations(lambda: 0.0)
        self.journal = Journal("extproc-0")
        self.admin = Admin(lambda: self.ready, lambda: SNAPSHOT, self.reservations, self.journal, Metrics())


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def client(worker: Worker) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(worker.admin.app())) as client:
        yield client


async def test_every_listed_path_is_served(client: TestClient) -> None:
    for path in PATHS:
        response = await client.get(path.replace("{request_id}", "none"))
        assert response.status == (404 if "explain" in path else 200), path


async def test_readiness_follows_the_worker(client: TestClient, worker: Worker) -> None:
    worker.ready = False

    assert (await client.get("/readyz")).status == 503
    assert (await client.get("/healthz")).status == 200


async def test_metrics_are_prometheus_text(client: TestClient) -> None:
    response = await client.get("/metrics")

    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "kvoy_decision_seconds_count" in await response.text()


async def test_a_decision_is_explained(client: TestClient, worker: Worker) -> None:
    worker.journal.rejected(a_head(), Rejection("unknown-model", "no such model"), 1)

    told = await (await client.get("/explain/request-1")).json()

    assert told["reason"] == "unknown-model"
    assert (await client.get("/explain/other")).status == 404


async def test_the_state_shows_endpoints_and_counts(client: TestClient, worker: Worker) -> None:
    worker.reservations.reserve(
        pod="pod/default/a", address="x", server="server/default/s", route="route/default/r"
    )

    state = await (await client.get("/debug/state")).json()

    assert state["generation"] == 1
    assert state["models"] == ["m"]
    assert state["endpoints"] == {"default/s": ["10.0.0.1:8000", "10.0.0.1:8000"]}
    assert state["in_flight"] == {"own": {"default/a": 1}, "all": {"default/a": 1, "default/b": 0}}
