"""What belongs to a transfer of a KV cache reaches only the decode endpoints that it was made for.

The worker tells in metadata (`exchange.Transferred`) which bytes of the body, or which header, that is, and
for whom. These filters run in the cluster, once per attempt, where Envoy has chosen the endpoint.
"""

from importlib.resources import files

from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation_rules
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.http.header_mutation import v3 as header_mutation
from envoy_data_plane.envoy.extensions.filters.http.lua import v3 as lua
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec import v3 as upstream_codec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.google.protobuf import Any

from extproc.state import envoy

HOST_HEADER = f"{envoy.OWN_HEADER_PREFIX}upstream-host"
ATTEMPT_HEADER = f"{envoy.OWN_HEADER_PREFIX}attempt"
"""Tell the script what it cannot ask Envoy for; it removes both."""
SPENT_NAMESPACE = "kvoy.transfer"
"""Dynamic metadata namespace of what the script keeps from one attempt to the next."""
SPENT_KEY = "spent"


def transfer_filters() -> list[hcm.HttpFilter]:
    """Filters of a cluster: see which attempt it is, take the transfer out if need be, send the request."""
    script = files(__package__).joinpath("transfers.lua").read_text()
    code = core.DataSource(inline_string=_constants() + script)
    told = [_told(HOST_HEADER, "%UPSTREAM_HOST%"), _told(ATTEMPT_HEADER, "%UPSTREAM_REQUEST_ATTEMPT_COUNT%")]
    tell = header_mutation.HeaderMutation(mutations=header_mutation.Mutations(request_mutations=told))
    return [
        hcm.HttpFilter(name="kvoy.attempt", typed_config=Any.pack(tell)),
        hcm.HttpFilter(name="kvoy.transfers", typed_config=Any.pack(lua.Lua(default_source_code=code))),
        hcm.HttpFilter(
            name="envoy.filters.http.upstream_codec", typed_config=Any.pack(upstream_codec.UpstreamCodec())
        ),
    ]


def _told(header: str, value: str) -> mutation_rules.HeaderMutation:
    option = core.HeaderValueOption(
        header=core.HeaderValue(key=header, value=value),
        append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    return mutation_rules.HeaderMutation(append=option)


def _constants() -> str:
    names = {
        "NAMESPACE": envoy.KVOY_NAMESPACE,
        "TRANSFER": envoy.TRANSFER_KEY,
        "OWN_NAMESPACE": SPENT_NAMESPACE,
        "SPENT": SPENT_KEY,
        "HOST_HEADER": HOST_HEADER,
        "ATTEMPT_HEADER": ATTEMPT_HEADER,
        "PREFILLER_HEADER": envoy.PREFILLER_HEADER,
    }
    return "".join(f"local {name} = {value!r}\n" for name, value in names.items())
