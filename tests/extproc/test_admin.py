import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from extproc import admin
from extproc.admin import LARGEST_BODY, PATHS, Admin, Asked, Views
from extproc.metrics import Metrics
from extproc.request import Head
from extproc.state.live import Engine, Load
from extproc.state.records import Disaggregation
from extproc.testing import a_part, a_pod, a_route, a_rule, a_server, a_snapshot

SERVER = msgspec.structs.replace(a_server("s"), ranks=2)
SNAPSHOT = a_snapshot(a_route("r", a_rule("s"), model="m"), SERVER, a_pod("a", "s"))


class Worker:
    """What an admin endpoint shows."""

    def __init__(self) -> None:
        self.snapshot = SNAPSHOT
        self.ready = True
        self.asked: list[tuple[Head, bytes]] = []
        self.views = Views(
            ready=lambda: self.ready,
            exposition=Metrics().exposition,
            explain=lambda request_id: {"why": "so"} if request_id == "request-1" else None,
            preview=self.preview,
            snapshot=lambda: self.snapshot,
            own=lambda: {"pod/default/a#1": Load(1, 300)},
            load=lambda key: Load(2, 700) if key.endswith("#1") else Load(0, 0),
            engines=lambda: [(Engine("pod/default/a#0", "10.0.0.1:8000", 0.1, waiting=3), 0.25678)],
            entries=lambda: {"prefix": 10, "kv": 20},
            lag_s=lambda: 0.004,
        )

    async def preview(self, head: Head, body: bytes) -> Mapping[str, Any]:
        self.asked.append((head, body))
        return {"why": "would"}


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def client(worker: Worker) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(Admin(worker.views).app())) as client:
        yield client


async def test_every_listed_path_is_served(client: TestClient) -> None:
    for listed in PATHS:
        method, path = listed.split()
        response = await client.request(method, path.replace("{request_id}", "request-1"), data=b"{}")
        assert response.status == 200, path


async def test_readiness_follows_the_worker(client: TestClient, worker: Worker) -> None:
    worker.ready = False

    assert (await client.get("/readyz")).status == 503
    assert (await client.get("/healthz")).status == 200


async def test_metrics_are_prometheus_text(client: TestClient) -> None:
    response = await client.get("/metrics")

    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "kvoy_decision_seconds_count" in await response.text()


async def test_a_decision_is_explained(client: TestClient) -> None:
    assert await (await client.get("/explain/request-1")).json() == {"why": "so"}

    unknown = await client.get("/explain/other")
    assert unknown.status == 404
    assert await unknown.json() == {"error": "this worker has no decision under this request id"}


async def test_the_state_is_told_per_engine(client: TestClient) -> None:
    state = await (await client.get("/debug/state")).json()

    assert state == {
        "epoch": "epoch",
        "generation": 1,
        "models": ["m"],
        "endpoints": {
            "default/s": [
                {"engine": "default/a#0", "address": "10.0.0.1:8000"},
                {"engine": "default/a#1", "address": "10.0.0.1:8000"},
            ]
        },
        "in_flight": {
            "own": {"default/a#1": {"requests": 1, "tokens": 300}},
            "all": {
                "default/a#0": {"requests": 0, "tokens": 0},
                "default/a#1": {"requests": 2, "tokens": 700},
            },
        },
        "engines": {"default/a#0": {"address": "10.0.0.1:8000", "waiting": 3, "age_s": 0.257}},
        "cache_entries": {"prefix": 10, "kv": 20},
        "lag_s": 0.004,
    }


async def test_what_prefill_endpoints_have_to_do_is_told_too(client: TestClient, worker: Worker) -> None:
    apart = a_server("s", apart=Disaggregation("nixl"))
    worker.snapshot = a_snapshot(apart, a_part("p", "s", "prefill"), a_part("d", "s", "decode"))

    state = await (await client.get("/debug/state")).json()

    assert set(state["in_flight"]["all"]) == {"default/p", "default/d"}


class TestRoute:
    async def test_the_body_reaches_the_preview_byte_by_byte(self, client, worker):
        body = '{ "model":"m",\n "n": 1.50, "text": "\\u00e9é" }'
        response = await client.post("/route", data=f'{{"path": "/v1/completions", "body": {body}}}'.encode())

        assert (response.status, await response.json()) == (200, {"why": "would"})
        assert worker.asked == [(Head("POST", "/v1/completions", {}), body.encode())]

    async def test_a_string_holds_what_need_not_be_json(self, client, worker):
        await client.post("/route", json={"body": '{"model": ü'})

        assert worker.asked == [(Head("POST", "/v1/chat/completions", {}), '{"model": ü'.encode())]

    async def test_headers_and_path_are_read_as_from_envoy(self, client, worker):
        asked = {"method": "get", "path": "/v1/models/?x=/", "headers": {"User-Type": "Premium"}}
        await client.post("/route", json=asked)

        assert worker.asked == [(Head("GET", "/v1/models", {"user-type": "Premium"}), b"")]

    @pytest.mark.parametrize(
        "posted",
        [
            b"",
            b"[]",
            b"{",
            b'{"body": {]}',
            b'{"headers": {"a": 1}}',
            b'{"bdy": 1}',
            b'{"path": 7}',
            b'\xff{"body": {}}',
            b'{"path": "\xff"}',
            b'{"body": "\\ud800"}',
            b'{"body": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        ],
    )
    async def test_what_is_no_question_is_refused_with_a_reason(self, client, worker, posted):
        response = await client.post("/route", data=posted)

        assert response.status == 400
        assert (await response.json())["error"].startswith("not a JSON object {method, path, headers, body}")
        assert worker.asked == []

    async def test_a_body_up_to_the_limit_is_looked_at_and_a_larger_one_is_not(self, client, worker):
        for excess, status in ((0, 200), (1, 413)):
            quotes = '"' * (LARGEST_BODY + excess)
            response = await client.post("/route", data=BytesIO(json.dumps({"body": quotes}).encode()))
            assert response.status == status
        assert (await response.json())[
            "error"
        ] == "the body is larger than the 16 MiB that can be looked at here"
        assert [len(body) for _, body in worker.asked] == [LARGEST_BODY]

    async def test_more_than_is_ever_needed_is_not_read(self, client, worker, monkeypatch):
        monkeypatch.setattr(admin, "_LARGEST_ASKED", 1000)
        async with TestClient(TestServer(Admin(worker.views).app())) as small:
            response = await small.post("/route", data=b" " * 1001)
            assert response.status == 413
            assert "16 MiB" in (await response.json())["error"]

        assert worker.asked == []

    async def test_a_worker_that_knows_no_configuration_says_so(self, client, worker):
        worker.ready = False
        response = await client.post("/route", json={})

        assert response.status == 503
        assert "not ready" in (await response.json())["error"]

    async def test_a_preview_that_fails_is_an_error_of_this_question_alone(self, worker):
        async def broken(head: Head, body: bytes) -> Mapping[str, Any]:
            raise RuntimeError("a defect")

        views = replace(worker.views, preview=broken)
        async with TestClient(TestServer(Admin(views).app())) as client:
            assert (await client.post("/route", json={})).status == 500
            assert (await client.get("/healthz")).status == 200


def test_a_question_may_be_empty() -> None:
    asked = Asked()

    assert (asked.head(), asked.content()) == (Head("POST", "/v1/chat/completions", {}), b"")
