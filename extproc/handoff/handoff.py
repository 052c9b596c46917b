"""What a decision leaves to be carried out where prefill and decode are apart."""

from collections.abc import Mapping
from dataclasses import dataclass

from extproc.exchange import Routing
from extproc.request import Api
from extproc.schedule.pair import PREFILLS_LISTED
from extproc.state.records import ConnectorName, Tls
from extproc.state.snapshot import Endpoint

TRIES = PREFILLS_LISTED
"""Prefill endpoints that are tried for one request: all that are named."""
_SLACK_S = 2.0
"""For everything about a hand-off but the wait for prefill engines."""


@dataclass(frozen=True, slots=True)
class HandOff:
    """One request for two engines. Both are reserved."""

    connector: ConnectorName
    api: Api
    path: str
    """Of the request, without the query."""
    body: bytes
    """As the decode engine would get it, were it to compute the prompt itself."""
    headers: Mapping[str, str]
    """The client's, as far as the prefill engine needs them too (credentials, tracing)."""
    request_id: str
    prefills: tuple[Endpoint, ...]
    """Prefill endpoints of the group, best first; at least one."""
    reservation: int
    """Of the first of `prefills`."""
    routing: Routing
    """To the decode endpoint, without any transfer."""
    partners: tuple[str, ...]
    """``ip:port`` of the decode endpoints of the same group: only they may get the transfer's parameters."""
    tls: Tls | None
    timeout_s: float
    """For each try."""
    decode_alone: bool
    """What to do when no prefill endpoint does its part: decode without, or answer with an error."""
    tensor_parallel: int

    @property
    def longest_s(self) -> float:
        """Until it is known how it goes on, at most."""
        return min(TRIES, len(self.prefills)) * self.timeout_s + _SLACK_S
