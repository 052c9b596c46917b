"""Typed extension configs."""

from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router

from controller.xds.extension import extension


def test_an_extension_carries_its_name_and_the_type_of_its_config():
    found = extension("envoy.filters.http.router", Router(suppress_envoy_headers=True))
    assert found.name == "envoy.filters.http.router"
    assert found.typed_config.type_url == "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    assert found.typed_config.unpack() == Router(suppress_envoy_headers=True)
