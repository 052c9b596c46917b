"""Pod: one engine, as Kubernetes prints it. Only what routing needs is read; the rest is Kubernetes' own."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

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
        given = self.metadata.annotations
        yield from annotations.port(given, annotations.PORT)
        yield from annotations.port(given, annotations.KV_PORT)
        engine = given.get(annotations.KV_ENGINE_ID)
        if engine is not None and not (0 < len(engine) <= 256 and engine.isprintable()):
            message = f"{quoted(engine)} is not an engine id: 1 to 256 printable characters"
            yield Fault(annotations.at(annotations.KV_ENGINE_ID), message)
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

    def record(self, servers: Sequence[str], members: Mapping[str, records.Member]) -> records.Pod:
        """The pod as it is published, with the ModelServers that it serves and its part in them.

        Call it on a routable view without faults.
        """
        port = self.metadata.annotations.get(annotations.PORT)
        return records.Pod(
            namespace=self.metadata.namespace,
            name=self.metadata.name,
            ip=_ip(self.status.ip) or "",
            servers=tuple(servers),
            port=None if port is None else int(port),
            members=dict(members),
            kv_engine=self.metadata.annotations.get(annotations.KV_ENGINE_ID),
        )


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
