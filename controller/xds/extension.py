"""Typed extension configs: how Envoy's configuration names a filter, a policy or a matcher input."""

import betterproto2
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.google.protobuf import Any


def extension(name: str, config: betterproto2.Message) -> core.TypedExtensionConfig:
    """`config` under the name of the extension that reads it."""
    return core.TypedExtensionConfig(name=name, typed_config=Any.pack(config))
