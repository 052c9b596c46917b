"""Typed objects -> records, or every problem there is. Pure: equal input gives equal output."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from controller.manifests.modelroute import ModelRoute
from controller.manifests.modelserver import ModelServer
from controller.manifests.pod import Pod
from controller.manifests.problem import Problem
from controller.manifests.reader import Found, Reading
from controller.manifests.scheduler import SchedulerFile
from controller.manifests.shape import quoted
from controller.selection import Selection, incomplete_groups, select
from extproc.state import records


@dataclass(frozen=True, slots=True)
class Compilation:
    """A whole configuration, or why there is none."""

    records: dict[str, records.Record]
    """By key; empty if there are problems: nothing is applied by halves."""
    problems: tuple[Problem, ...] = ()
    skipped: tuple[str, ...] = ()
    """``kind (apiVersion)`` of each object of a kind that kvoy does not read."""
    notes: tuple[str, ...] = ()
    """What is valid and has less effect than its author may think; in order; empty if there are problems."""


def compile_records(reading: Reading) -> Compilation:
    """Check the objects against each other and compile them."""
    unique, twice = _unique(reading.objects)
    servers = {each.label: each.view for each in unique if isinstance(each.view, ModelServer)}
    pods = [
        (each, each.view, select(each.view, servers.values()))
        for each in unique
        if isinstance(each.view, Pod)
    ]
    routable = [(found, view, selection) for found, view, selection in pods if view.routable]
    placed = [
        (found, view.record(selection.servers, selection.members))
        for found, view, selection in routable
        if selection.servers
    ]
    targets = _missing_targets(unique) if reading.complete else iter(())
    selected = _selection_problems((found, selection) for found, _, selection in pods)
    problems = (*reading.problems, *twice, *targets, *selected, *_shared_addresses(placed, servers))
    if problems:
        return Compilation({}, _in_order(problems), reading.skipped)
    routes = (each.view.record() for each in unique if isinstance(each.view, ModelRoute))
    schedulers = (each.view.record() for each in unique if isinstance(each.view, SchedulerFile))
    compiled: Iterator[records.Record] = chain(
        routes, (server.record() for server in servers.values()), (pod for _, pod in placed), schedulers
    )
    by_key = {record.key: record for record in sorted(compiled, key=lambda record: record.key)}
    notes = chain(
        _unused_connectors(servers),
        *(selection.idle for _, _, selection in routable),
        incomplete_groups(pod for _, pod in placed),
    )
    return Compilation(by_key, (), reading.skipped, tuple(sorted(notes)))


def _unique(objects: tuple[Found, ...]) -> tuple[list[Found], list[Problem]]:
    """Each object once; a problem for every further one of the same name."""
    first: dict[str, Found] = {}
    problems = []
    for found in objects:
        before = first.setdefault(found.label, found)
        if before is not found:
            message = f"is also in {before.file}; remove one of them"
            if before.file == found.file:
                message = "is in this file twice; remove one of them"
            problems.append(Problem(found.file, found.label, "", message))
    return list(first.values()), problems


def _selection_problems(pods: Iterable[tuple[Found, Selection]]) -> Iterator[Problem]:
    for found, selection in pods:
        for fault in selection.faults:
            yield Problem(found.file, found.label, fault.field, fault.message)


def _unused_connectors(servers: dict[str, ModelServer]) -> Iterator[str]:
    for label, server in servers.items():
        if server.spec.kv_connector is not None and server.spec.workload_selector.pd_group is None:
            yield f"spec.kvConnector of {label} has no effect without spec.workloadSelector.pdGroup"


def _missing_targets(objects: list[Found]) -> Iterator[Problem]:
    declared = {(each.namespace, each.name) for each in objects if each.kind == "ModelServer"}
    for found in objects:
        if not isinstance(found.view, ModelRoute):
            continue
        for at, rule in enumerate(found.view.spec.rules):
            for position, target in enumerate(rule.target_models):
                name = target.model_server_name
                if (found.namespace, name) not in declared:
                    yield Problem(
                        found.file,
                        found.label,
                        f"spec.rules[{at}].targetModels[{position}].modelServerName",
                        f'no ModelServer {quoted(name)} in namespace "{found.namespace}"; '
                        "create it or fix the name",
                    )


def _shared_addresses(
    pods: list[tuple[Found, records.Pod]], servers: dict[str, ModelServer]
) -> Iterator[Problem]:
    """Two pods of one ModelServer behind one address cannot be told apart."""
    taken: dict[tuple[str, str], str] = {}
    reported: defaultdict[str, set[str]] = defaultdict(set)
    for found, pod in pods:
        for name in pod.servers:
            server = servers[f"ModelServer {pod.namespace}/{name}"].record()
            address = pod.address(server)
            other = taken.setdefault((server.key, address), found.label)
            if other != found.label and other not in reported[found.label]:
                reported[found.label].add(other)
                message = f"{address} is also the address of {other}; give one of them another IP or port"
                yield Problem(found.file, found.label, "status.podIP", message)


def _in_order(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: problem.file))
