"""ModelServer: a pool of pods that serve one model, and how Envoy speaks to them."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import msgspec

from controller.manifests import annotations, disaggregation, duration, kv_events, metadata, scheduler
from controller.manifests.disaggregation import KvConnector, PdGroup
from controller.manifests.metadata import Metadata
from controller.manifests.problem import Fault
from controller.manifests.shape import quoted
from extproc.state import records

Duration = Annotated[str, msgspec.Meta(examples=["10s"])]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]

_TLS = (
    annotations.TLS_SERVER_NAME,
    annotations.TLS_CA_FILE,
    annotations.TLS_INSECURE_SKIP_VERIFY,
)


class WorkloadSelector(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Which pods of the namespace: those that carry all these labels, and which of them does what."""

    match_labels: dict[str, str]
    pd_group: PdGroup | None = None


class WorkloadPort(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the pods listen."""

    port: Port
    protocol: Literal["http", "https"] = "http"


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """How often further pods are tried, and the base interval between tries."""

    attempts: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    retry_interval: Duration = "100ms"


class TrafficPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Longest wait for response headers (per try; "0" means no limit), and retries."""

    timeout: Duration | None = None
    retry: Retry | None = None


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The engine, its pods, and how they are reached."""

    inference_engine: Literal["vLLM", "SGLang"]
    workload_selector: WorkloadSelector
    workload_port: WorkloadPort
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    traffic_policy: TrafficPolicy = TrafficPolicy()
    kv_connector: KvConnector | None = None


class ModelServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``networking.serving.volcano.sh/v1alpha1``, kind ModelServer."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: Spec
    status: object = None

    def faults(self) -> Iterator[Fault]:
        """What the types alone cannot say."""
        yield from metadata.faults(self.metadata)
        yield from annotations.unknown(self.kind, self.metadata.annotations)
        given = self.metadata.annotations
        yield from annotations.one_of(given, annotations.STREAM_USAGE, ("always", "client"))
        yield from annotations.one_of(given, annotations.CLIENT_CONTROL, ("strip", "keep"))
        yield from _tls_faults(self)
        yield from _engine_faults(given)
        yield from disaggregation.faults(
            self.spec.inference_engine,
            self.spec.workload_selector.match_labels,
            self.spec.workload_selector.pd_group,
            self.spec.kv_connector,
            given,
        )
        yield from _policy_faults(self.spec.traffic_policy)
        if not self.spec.workload_selector.match_labels:
            yield Fault(
                "spec.workloadSelector.matchLabels",
                "is empty and would select every pod of the namespace; name the labels of this model's pods",
            )

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod of the same namespace with these labels is one of its pods."""
        return self.spec.workload_selector.match_labels.items() <= labels.items()

    @property
    def connector(self) -> records.ConnectorName:
        """How its engines hand KV caches over, where prefill and decode are apart."""
        return disaggregation.connector(self.spec.inference_engine, self.spec.kv_connector)

    def record(self) -> records.ModelServer:
        """The server as it is published; call it on a view without faults."""
        policy = self.spec.traffic_policy
        return records.ModelServer(
            namespace=self.metadata.namespace,
            name=self.metadata.name,
            engine=self.spec.inference_engine,
            port=self.spec.workload_port.port,
            model=self.spec.model,
            timeout_s=None if policy.timeout is None else duration.seconds(policy.timeout) or None,
            retry=records.Retry() if policy.retry is None else _retry(policy.retry),
            tls=_tls(self),
            report_usage=self.metadata.annotations.get(annotations.STREAM_USAGE) != "client",
            ranks=int(self.metadata.annotations.get(annotations.DATA_PARALLEL_SIZE, "1")),
            profile=_profile(self.metadata.annotations),
            tokenizer=self.metadata.annotations.get(annotations.TOKENIZER),
            kv_events=kv_events.record(self.metadata.annotations),
            disaggregation=_disaggregation(self),
            client_control=self.metadata.annotations.get(annotations.CLIENT_CONTROL) == "keep",
        )


def _policy_faults(policy: TrafficPolicy) -> Iterator[Fault]:
    if policy.timeout is not None:
        yield from duration.faults(policy.timeout, "spec.trafficPolicy.timeout")
    if policy.retry is not None:
        path = "spec.trafficPolicy.retry.retryInterval"
        yield from duration.faults(policy.retry.retry_interval, path, shortest="1ms")


def _tls_faults(server: ModelServer) -> Iterator[Fault]:
    given = server.metadata.annotations
    if server.spec.workload_port.protocol != "https":
        for name in _TLS:
            if name in given:
                yield Fault(annotations.at(name), "needs spec.workloadPort.protocol to be https")
        return
    yield from annotations.one_of(given, annotations.TLS_INSECURE_SKIP_VERIFY, ("false", "true"))
    server_name, ca_file = given.get(annotations.TLS_SERVER_NAME), given.get(annotations.TLS_CA_FILE)
    if server_name is not None and not metadata.is_dns_name(server_name):
        at = annotations.at(annotations.TLS_SERVER_NAME)
        yield Fault(at, f"{quoted(server_name)} is not a lower-case DNS name")
    if ca_file is not None and not ca_file.startswith("/"):
        yield Fault(annotations.at(annotations.TLS_CA_FILE), f"{quoted(ca_file)} is not an absolute path")
    if ca_file is not None and given.get(annotations.TLS_INSECURE_SKIP_VERIFY) == "true":
        yield Fault(
            annotations.at(annotations.TLS_CA_FILE),
            f"has no effect while {annotations.TLS_INSECURE_SKIP_VERIFY} is true; remove one of them",
        )


def _engine_faults(given: Mapping[str, str]) -> Iterator[Fault]:
    """What the annotations say about the engines themselves."""
    yield from annotations.number(given, annotations.DATA_PARALLEL_SIZE, 1, 64)
    ranks = given.get(annotations.DATA_PARALLEL_SIZE, "1")
    name = given.get(annotations.TOKENIZER)
    if name is not None and not _is_below(name):
        at = annotations.at(annotations.TOKENIZER)
        yield Fault(at, f"{quoted(name)} is not a path below a directory, such as org/model")
    yield from kv_events.faults(given, int(ranks) if annotations.is_number(ranks, 1, 64) else 1)
    if annotations.SCHEDULER in given:
        for fault in scheduler.read_text(given[annotations.SCHEDULER])[1]:
            message = f"{fault.field}: {fault.message}" if fault.field else fault.message
            yield Fault(annotations.at(annotations.SCHEDULER), message)


def _disaggregation(server: ModelServer) -> records.Disaggregation | None:
    if server.spec.workload_selector.pd_group is None:
        return None
    return disaggregation.record(server.connector, server.metadata.annotations)


def _is_below(path: str) -> bool:
    return path.isprintable() and all(part not in ("", ".", "..") for part in path.split("/"))


def _profile(given: Mapping[str, str]) -> records.Profile | None:
    if annotations.SCHEDULER not in given:
        return None
    view, _ = scheduler.read_text(given[annotations.SCHEDULER])
    assert view is not None
    return view.scheduler.profile()


def _tls(server: ModelServer) -> records.Tls | None:
    if server.spec.workload_port.protocol != "https":
        return None
    given = server.metadata.annotations
    return records.Tls(
        server_name=given.get(
            annotations.TLS_SERVER_NAME, f"{server.metadata.name}.{server.metadata.namespace}.svc"
        ),
        ca_file=given.get(annotations.TLS_CA_FILE),
        verify=given.get(annotations.TLS_INSECURE_SKIP_VERIFY) != "true",
    )


def _retry(retry: Retry) -> records.Retry:
    return records.Retry(attempts=retry.attempts, interval_s=duration.seconds(retry.retry_interval))
