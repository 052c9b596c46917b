"""Which ModelServers a pod serves, and as what. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import get_args

from controller.manifests import disaggregation
from controller.manifests.disaggregation import PdGroup
from controller.manifests.modelserver import ModelServer
from controller.manifests.pod import Pod
from controller.manifests.problem import Fault
from controller.manifests.shape import quoted
from extproc.state.records import Member, Role
from extproc.state.records import Pod as PodRecord


@dataclass(slots=True)
class Selection:
    """What the ModelServers of its namespace make of a pod."""

    servers: list[str] = field(default_factory=list)
    """Names of those it serves, in order."""
    members: dict[str, Member] = field(default_factory=dict)
    """Its part in those with disaggregation."""
    idle: list[str] = field(default_factory=list)
    """For each that selects the pod and gives it nothing to do: why, as a sentence for people."""
    faults: list[Fault] = field(default_factory=list)
    """Where it would do prefill and decode."""


def select(pod: Pod, servers: Iterable[ModelServer]) -> Selection:
    """What the servers, in any order, make of the pod."""
    found = Selection()
    for server in sorted(servers, key=lambda each: each.metadata.name):
        if server.metadata.namespace == pod.metadata.namespace and server.selects(pod.metadata.labels):
            _add(found, pod, server)
    return found


def incomplete_groups(pods: Iterable[PodRecord]) -> Iterator[str]:
    """A sentence for each group that lacks one of the roles among the pods: none of its pods can hand off."""
    present: defaultdict[tuple[str, str, str], set[Role]] = defaultdict(set)
    for pod in pods:
        for server, member in pod.members.items():
            present[pod.namespace, server, member.group].add(member.role)
    for (namespace, server, group), roles in sorted(present.items()):
        for role in get_args(Role):
            if role not in roles:
                yield f"group {quoted(group)} of ModelServer {namespace}/{server} has no ready {role} pod"


def _add(found: Selection, pod: Pod, server: ModelServer) -> None:
    name, group = server.metadata.name, server.spec.workload_selector.pd_group
    part = None if group is None else _part(pod, server, group)
    match part:
        case Fault():
            found.faults.append(part)
        case str():
            found.idle.append(f"Pod {_label(pod)} does nothing for ModelServer {_label(server)}: {part}")
        case Member():
            found.members[name] = part
            found.servers.append(name)
        case None:
            found.servers.append(name)


def _part(pod: Pod, server: ModelServer, group: PdGroup) -> Member | Fault | str:
    """Its part, or why it has none."""
    roles = group.roles(pod.metadata.labels)
    value = pod.metadata.labels.get(group.group_key)
    if len(roles) > 1:
        message = f"match prefillLabels and decodeLabels of ModelServer {_label(server)}; change one of them"
        return Fault("metadata.labels", message)
    if not roles:
        return "it matches neither prefillLabels nor decodeLabels"
    if not value:
        return f"its label {quoted(group.group_key)} is missing or empty"
    return Member(roles[0], value, _kv_port(pod, server) if roles[0] == "prefill" else 0)


def _kv_port(pod: Pod, server: ModelServer) -> int:
    return disaggregation.kv_port(server.connector, pod.metadata.annotations, server.metadata.annotations)


def _label(found: Pod | ModelServer) -> str:
    return f"{found.metadata.namespace}/{found.metadata.name}"
