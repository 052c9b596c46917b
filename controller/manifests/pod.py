"""Pod: one engine, as Kubernetes prints it. Only what routing needs is read; the rest is Kubernetes' own."""

import ipaddress
from collections.abc import Iterator

import msgspec

from controller.manifests import annotations, metadata
from controller.manifests.metadata import Metadata
from controller.manifests.problem import Fault
from controller.manifests.shape import quoted
from extproc.state import records


class Condition(msgspec.Struct, frozen=True):
    """One line of the pod's state, such as type Ready, status "True"."""

    type: str
    status: str


class Status(msgspec.Struct, frozen=True):
    """What the kubelet, or who wrote the file, says about the pod."""

    ip: str = msgspec.field(default="", name="podIP")
    phase: str = "Running"
    conditions: list[Condition] = []


class Pod(msgspec.Struct, frozen=True, rename="camel"):
    """``v1``, kind Pod."""

    api_version: str
    kind: str
    metadata: Metadata
    status: Status = Status()

    def faults(self) -> Iterator[Fault]:
        """What the types alone cannot say."""
        yield from metadata.faults(self.metadata)
        yield from annotations.unknown(self.kind, self.metadata.annotations)
        port = self.metadata.annotations.get(annotations.PORT)
        if port is not None and _port(port) is None:
            yield Fault(annotations.at(annotations.PORT), f"{quoted(port)} is not a port from 1 to 65535")
        if self.status.ip and _ip(self.status.ip) is None:
            yield Fault("status.podIP", f"{quoted(self.status.ip)} is not an IPv4 or IPv6 address")

    @property
    def routable(self) -> bool:
        """Whether requests may go to it: it has an address, runs, is ready and is not being deleted."""
        return (
            self.status.ip != ""
            and self.metadata.deletion_timestamp is None
            and self.status.phase == "Running"
            and all(each.status == "True" for each in self.status.conditions if each.type == "Ready")
        )

    def record(self, servers: tuple[str, ...]) -> records.Pod:
        """The pod as it is published, with the ModelServers that select it.

        Call it on a routable view without faults.
        """
        port = self.metadata.annotations.get(annotations.PORT)
        return records.Pod(
            namespace=self.metadata.namespace,
            name=self.metadata.name,
            ip=_ip(self.status.ip) or "",
            servers=servers,
            port=None if port is None else _port(port),
        )


def _port(text: str) -> int | None:
    if not text.isascii() or not text.isdecimal() or len(text) > 5:
        return None
    return int(text) if 1 <= int(text) <= 65535 else None


def _ip(text: str) -> str | None:
    """The address as Envoy prints it, so that equal addresses are equal strings."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return str(address.ipv4_mapped or address)
    return str(address)
