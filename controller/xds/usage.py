"""The token usage that an engine states in its answer, copied to metadata for the access log.

Envoy's own filters for this do not serve: sse_to_metadata (1.40) crashes Envoy on a server-sent event whose
data is a JSON scalar, and json_to_metadata holds the whole answer and turns a large one into a 500.
"""

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.http.lua import v3 as lua
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.google.protobuf import Any

from extproc.state import envoy

COUNTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        envoy.PROMPT_TOKENS_KEY: ("prompt_tokens", "input_tokens"),
        envoy.COMPLETION_TOKENS_KEY: ("completion_tokens", "output_tokens"),
        envoy.CACHED_TOKENS_KEY: ("cached_tokens", "cache_read_input_tokens"),
    }
)
"""Metadata key to the names of that count inside ``usage``: OpenAI's two APIs, and Anthropic's."""


def usage_filter() -> hcm.HttpFilter:
    """Reads JSON and server-sent events as they pass; changes and delays nothing."""
    script = files(__package__).joinpath("usage.lua").read_text()
    code = core.DataSource(inline_string=_constants() + script)
    return hcm.HttpFilter(name="kvoy.usage", typed_config=Any.pack(lua.Lua(default_source_code=code)))


def _constants() -> str:
    counts = (f"{key} = {{ {', '.join(map(repr, names))} }}" for key, names in COUNTS.items())
    return f"local NAMESPACE = {envoy.USAGE_NAMESPACE!r}\nlocal COUNTS = {{ {', '.join(counts)} }}\n"
