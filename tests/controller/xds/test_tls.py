"""https to the pods, on the real Envoy."""

import logging
import ssl
from pathlib import Path

import pytest

from controller.xds.resources import build
from controller.xds.tls import SYSTEM_CA, tls_socket
from extproc.state.records import ModelServer, Tls
from tests.controller.xds.mesh import DEADLINE_S, Mesh, pods, until
from tests.controller.xds.stub_engine import StubEngine

FILES = Path(__file__).parent / "tls"
CA = str(FILES / "ca.pem")


def server(tls: Tls | None) -> ModelServer:
    return ModelServer("ns", "s", "vLLM", 8000, tls=tls)


@pytest.fixture
async def secure_engine():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(FILES / "engine.pem", FILES / "engine.key")
    engine = StubEngine("secure")
    await engine.start(context)
    yield engine
    await engine.stop()


async def status_through(mesh: Mesh, engine: StubEngine, tls: Tls) -> int:
    await mesh.offer(server(tls), *pods([engine]))
    mesh.route_to(engine.address)
    return (await mesh.ask())[0]


async def test_only_a_pod_that_proves_its_name_is_spoken_to(mesh, secure_engine):
    assert await status_through(mesh, secure_engine, Tls("engine.test", CA)) == 200
    assert await status_through(mesh, secure_engine, Tls("other.test", CA)) == 503
    assert await status_through(mesh, secure_engine, Tls("other.test", CA, verify=False)) == 200
    assert len(secure_engine.seen) == 2


async def test_an_unknown_authority_is_not_trusted(mesh, secure_engine):
    if not Path(SYSTEM_CA).exists():
        pytest.skip(f"this machine has no {SYSTEM_CA}")
    assert await status_through(mesh, secure_engine, Tls("engine.test")) == 503
    assert secure_engine.seen == []


async def test_a_bundle_that_cannot_be_read_is_reported_and_the_rest_stays(mesh, caplog):
    broken = ModelServer("ns", "broken", "vLLM", 8000, tls=Tls("engine.test", "/nowhere/ca.pem"))
    records = {**mesh.records, broken.key: broken}
    with caplog.at_level(logging.ERROR, "kvoy.xds"):
        mesh.ads.offer(build(records, mesh.plane))
        assert not await mesh.ads.accepted(DEADLINE_S)
        await until(lambda: caplog.records, "the refusal in the log")
    (record,) = caplog.records
    assert "/nowhere/ca.pem" in record.getMessage()
    assert "refuses Cluster" in record.getMessage()
    assert (await mesh.ask())[0] == 200
    await mesh.offer(*(record for key, record in records.items() if key != broken.key))


def test_without_a_bundle_the_systems_is_used():
    context = tls_socket(Tls("engine.test")).typed_config.unpack()
    assert context.common_tls_context.validation_context.trusted_ca.filename == SYSTEM_CA
    assert context.sni == "engine.test"
