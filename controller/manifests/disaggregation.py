"""Prefill and decode apart: which pods do what, and how KV caches travel between their engines."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import msgspec

from controller.manifests import annotations, duration
from controller.manifests.problem import Fault
from controller.manifests.shape import quoted
from extproc.state import records

Engine = Literal["vLLM", "SGLang"]

LONGEST_TIMEOUT = "140s"
"""Of one prefill endpoint. Two are tried, within `extproc.state.envoy.LONGEST_DECISION_S`."""

_GROUP = "spec.workloadSelector.pdGroup"

_ANNOTATIONS = (
    annotations.PREFILL_THRESHOLD,
    annotations.PREFILL_TIMEOUT,
    annotations.PREFILL_FALLBACK,
    annotations.PREFILL_TENSOR_PARALLEL_SIZE,
    annotations.KV_PORT,
)


class PdGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Pods with equal values of the label `group_key` work together; the other labels say which does what."""

    group_key: Annotated[str, msgspec.Meta(min_length=1, max_length=317)]
    prefill_labels: dict[str, str]
    decode_labels: dict[str, str]

    def roles(self, labels: Mapping[str, str]) -> tuple[records.Role, ...]:
        """What a pod with these labels does: one of the two, neither, or by mistake both."""
        wanted: tuple[tuple[records.Role, dict[str, str]], ...] = (
            ("prefill", self.prefill_labels),
            ("decode", self.decode_labels),
        )
        return tuple(role for role, needed in wanted if needed.items() <= labels.items())


class KvConnector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How KV caches travel: Kthena's four ways, and two of kvoy."""

    type: Literal["http", "lmcache", "nixl", "mooncake", "nixl-push", "sidecar"] = "http"


def connector(engine: Engine, given: KvConnector | None) -> records.ConnectorName:
    """The connector in effect: SGLang's engines have a protocol of their own, except behind a sidecar."""
    named = KvConnector() if given is None else given
    return "sglang" if engine == "SGLang" and named.type != "sidecar" else named.type


def faults(
    engine: Engine,
    match_labels: Mapping[str, str],
    group: PdGroup | None,
    kv_connector: KvConnector | None,
    given: Mapping[str, str],
) -> Iterator[Fault]:
    """What is wrong with the two fields of a ModelServer, and with those annotations that belong to them."""
    if group is None:
        for name in _ANNOTATIONS:
            if name in given:
                yield Fault(annotations.at(name), f"needs {_GROUP}, which says which pods compute prompts")
        return
    yield from _group_faults(group, match_labels)
    yield from _value_faults(given)
    if engine == "SGLang" and kv_connector is not None and kv_connector.type == "nixl-push":
        message = '"nixl-push" is a connector of vLLM; remove it: SGLang\'s engines have their own protocol'
        yield Fault("spec.kvConnector.type", message)
    else:
        yield from _connector_faults(connector(engine, kv_connector), given)


def record(name: records.ConnectorName, given: Mapping[str, str]) -> records.Disaggregation:
    """The connector and the annotations as they are published; call it where there are no faults."""
    default = records.Disaggregation(name)
    timeout = given.get(annotations.PREFILL_TIMEOUT)
    return records.Disaggregation(
        connector=name,
        threshold=int(given.get(annotations.PREFILL_THRESHOLD, default.threshold)),
        prefill_timeout_s=default.prefill_timeout_s if timeout is None else duration.seconds(timeout),
        decode_alone=given.get(annotations.PREFILL_FALLBACK) != "error",
        tensor_parallel=int(given.get(annotations.PREFILL_TENSOR_PARALLEL_SIZE, default.tensor_parallel)),
    )


def kv_port(name: records.ConnectorName, *given: Mapping[str, str]) -> int:
    """Where decode engines ask a prefill engine: the first of the objects' annotations that says it decides.

    0 if the connector does not need it.
    """
    if name not in records.KV_PORTS:
        return 0
    said = (each[annotations.KV_PORT] for each in given if annotations.KV_PORT in each)
    return int(next(said, records.KV_PORTS[name]))


def _group_faults(group: PdGroup, match_labels: Mapping[str, str]) -> Iterator[Fault]:
    prefill, decode = group.prefill_labels, group.decode_labels
    for role, labels in (("prefill", prefill), ("decode", decode)):
        path = f"{_GROUP}.{role}Labels"
        if not labels:
            yield Fault(path, f"is empty and would select every pod; name the labels of the {role} pods")
        for key, value in labels.items():
            common = match_labels.get(key, value)
            if common != value:
                message = f"matchLabels wants {quoted(common)}, so no pod has both; make them agree"
                yield Fault(f"{path}[{quoted(key)}]", message)
    if prefill and decode:
        yield from _overlap_faults({**match_labels, **prefill}, {**match_labels, **decode})


def _overlap_faults(prefill: Mapping[str, str], decode: Mapping[str, str]) -> Iterator[Fault]:
    """Where every pod of one role would have the other one too."""
    if prefill.items() <= decode.items():
        role, other = "decode", "prefill"
    elif decode.items() <= prefill.items():
        role, other = "prefill", "decode"
    else:
        return
    message = f"every pod that they select matches {other}Labels too; let the two differ in a label's value"
    yield Fault(f"{_GROUP}.{role}Labels", message)


def _value_faults(given: Mapping[str, str]) -> Iterator[Fault]:
    yield from annotations.number(given, annotations.PREFILL_THRESHOLD, 0, 2**31 - 1)
    yield from annotations.one_of(given, annotations.PREFILL_FALLBACK, ("decode", "error"))
    yield from annotations.number(given, annotations.PREFILL_TENSOR_PARALLEL_SIZE, 1, 64)
    yield from annotations.port(given, annotations.KV_PORT)
    if annotations.PREFILL_TIMEOUT in given:
        at = annotations.at(annotations.PREFILL_TIMEOUT)
        yield from duration.faults(given[annotations.PREFILL_TIMEOUT], at, "10ms", LONGEST_TIMEOUT)


def _connector_faults(name: records.ConnectorName, given: Mapping[str, str]) -> Iterator[Fault]:
    for annotation in _without_effect(name):
        if annotation in given:
            yield Fault(annotations.at(annotation), f"has no effect with the connector {name}; remove it")
    ranks = given.get(annotations.DATA_PARALLEL_SIZE, "1")
    if name == "sidecar" and ranks != "1":
        at = annotations.at(annotations.DATA_PARALLEL_SIZE)
        yield Fault(at, "a sidecar is not told the rank of a prefill pod; use nixl, or one rank per pod")
    if name == "nixl-push" and ranks != "1":
        at = annotations.at(annotations.DATA_PARALLEL_SIZE)
        message = (
            "the connector nixl-push cannot tell the ranks of a pod apart; use nixl, or one rank per pod"
        )
        yield Fault(at, message)


def _without_effect(name: records.ConnectorName) -> Iterator[str]:
    if name not in records.KV_PORTS:
        yield annotations.KV_PORT
    if name != "nixl-push":
        yield annotations.PREFILL_TENSOR_PARALLEL_SIZE
    if name == "sidecar":  # it waits by its own clock, and does as it likes when a prefill fails
        yield annotations.PREFILL_TIMEOUT
        yield annotations.PREFILL_FALLBACK
    if name == "sglang":  # its decode engines never compute prompts
        yield annotations.PREFILL_THRESHOLD
        yield annotations.PREFILL_FALLBACK
