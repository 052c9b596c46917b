"""One file per protocol by which a prompt's KV cache travels between engines.

shared.py      http, lmcache: engines that find each other's caches by themselves
nixl.py        vLLM's NixlConnector: the decode engine pulls what the prefill engine's answer names
nixl_push.py   vLLM's NixlPushConnector: the prefill engine writes to who registered
mooncake.py    vLLM's MooncakeConnector: both engines meet under a transfer id
sglang.py      SGLang's own: both engines meet in a room of the prefill engine's bootstrap server
sidecar.py     a routing proxy on the decode pod does it all
"""

from collections.abc import Mapping
from types import MappingProxyType

from extproc.handoff.connector import Connector
from extproc.handoff.connectors.mooncake import Mooncake
from extproc.handoff.connectors.nixl import Nixl
from extproc.handoff.connectors.nixl_push import NixlPush
from extproc.handoff.connectors.sglang import SGLang
from extproc.handoff.connectors.shared import Shared
from extproc.handoff.connectors.sidecar import Sidecar
from extproc.state.records import ConnectorName

CONNECTORS: Mapping[ConnectorName, Connector] = MappingProxyType(
    {
        "http": Shared(),
        "lmcache": Shared(),
        "nixl": Nixl(),
        "nixl-push": NixlPush(),
        "mooncake": Mooncake(),
        "sglang": SGLang(),
        "sidecar": Sidecar(),
    }
)
"""By the name that manifests give them."""
