"""What a connector is: how a prompt's KV cache gets from a prefill engine to a decode engine.

A connector holds no state and does no I/O. It says what must be added to the request of each leg; `body`
writes it into the bodies, `driver` sends them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import msgspec

from extproc.state.snapshot import Source

Order = Literal["sequential", "concurrent", "sidecar"]
"""``sequential``: the prefill engine's answer is awaited, and the decode engine told of it. ``concurrent``:
both legs begin at once. ``sidecar``: a proxy on the decode pod does it all, and is only told where."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One prompt on its way between two engines."""

    request_id: str
    """``x-request-id`` of both legs, unique on our side."""
    api: str
    """`extproc.request.Api.name`."""
    address: str
    """``ip:port`` of the prefill engine's API."""
    source: Source
    """Where the decode engine finds the KV cache."""
    tensor_parallel: int
    room: int
    """A random number of 63 bits, drawn for each try."""
    engine_id: str
    """Of the prefill engine: `source.engine_id`, or what it says itself (`Connector.asks_engine_id`)."""
    rank: int | None
    """Data-parallel rank of the prefill endpoint; None where its pod has only one."""


@dataclass(frozen=True, slots=True)
class Leg:
    """What one leg's request carries beside what the client sent."""

    fields: Mapping[str, bytes] = field(default_factory=dict)
    """Top-level field of the body to its JSON; the client's own, if any, are gone by then."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a prefill engine answered."""

    params: msgspec.Raw | None
    """``kv_transfer_params`` as it wrote them; None where absent or null."""
    prompt_tokens: int
    """0 where it does not say."""
    cached_tokens: int | None
    """Of `prompt_tokens`; None where it does not say."""


class NoParameters(Exception):
    """The prefill engine answered without what the decode engine needs."""


class Connector(Protocol):
    """One protocol."""

    order: ClassVar[Order]
    decodes_alone: ClassVar[bool] = True
    """Whether the decode engine can also compute a prompt itself."""
    asks_engine_id: ClassVar[bool] = False
    """Whether the prefill engine's bootstrap server has to be asked for its engine id first."""
    passes_token: ClassVar[bool] = False
    """Whether the prefill engine's token is the answer's first one: it is to be sampled as the client asked,
    and the engine itself stops after it."""
    tries: ClassVar[int] = 0
    """`extproc.exchange.Transferred.tries`: attempts of Envoy's that may carry what `decode` adds."""
    apis: ClassVar[frozenset[str] | None] = None
    """Names of the `extproc.request.Api`s whose requests it can hand off; None for any."""

    def prefill(self, transfer: Transfer) -> Leg:
        """The prompt's leg; never called for a sidecar."""

    def decode(self, transfer: Transfer, reply: Reply | None) -> Leg:
        """The answer's leg. `reply` is there if the order is sequential.

        Raises NoParameters if it lacks them.
        """


def bracketed(host: str) -> str:
    """An IP as URLs have it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
