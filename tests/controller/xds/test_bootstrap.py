"""What Envoy is started with. That it starts is shown by every test that has an Envoy."""

import json
from pathlib import Path

import pytest

from controller.xds.bootstrap import bootstrap

SAMPLE = Path(__file__).parents[3] / "envoy" / "bootstrap.json"


def printed(admin: str = "127.0.0.1:9901") -> dict:
    return json.loads(bootstrap(xds_socket="/run/kvoy/xds.sock", node_id="envoy-0", admin=admin))


def test_the_sample_is_what_is_printed():
    assert json.loads(SAMPLE.read_text()) == printed()


def test_it_names_the_node_and_the_controllers_socket():
    found = printed()
    assert found["node"] == {"id": "envoy-0", "cluster": "kvoy"}
    (cluster,) = found["staticResources"]["clusters"]
    (part,) = cluster["loadAssignment"]["endpoints"]
    assert part["lbEndpoints"][0]["endpoint"]["address"] == {"pipe": {"path": "/run/kvoy/xds.sock"}}


def test_the_admin_interface_is_a_port_or_a_socket():
    assert printed()["admin"]["address"]["socketAddress"] == {"address": "127.0.0.1", "portValue": 9901}
    assert printed("unix:/run/a.sock")["admin"]["address"] == {"pipe": {"path": "/run/a.sock"}}


def test_an_admin_address_that_is_neither_is_refused():
    with pytest.raises(ValueError, match="9901 is not HOST:PORT"):
        printed("9901")


async def test_envoy_says_nothing_that_is_no_news(mesh):
    assert (await mesh.ask())[0] == 200
    assert mesh.envoy.log.read_text() == ""
