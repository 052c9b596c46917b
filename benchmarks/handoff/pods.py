"""The manifests of engines on this machine: one ModelServer over them, with or without hand-off."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from extproc.state.records import ConnectorName, Role

_GROUP = "networking.serving.volcano.sh/v1alpha1"


@dataclass(frozen=True, slots=True)
class Pod:
    """One engine at 127.0.0.1."""

    name: str
    port: int
    role: Role | None = None
    """None: it computes prompts and answers."""
    kv_port: int = 0
    """Where decode engines ask it; 0: nowhere."""


def manifests(name: str, pods: Sequence[Pod], connector: ConnectorName | None) -> Iterator[dict[str, Any]]:
    """A ModelServer over the pods and the route of a model, both called `name`.

    With a connector every prompt is handed off, however short.
    """
    yield _object(
        "ModelRoute", name, {"modelName": name, "rules": [{"targetModels": [{"modelServerName": name}]}]}
    )
    yield _object("ModelServer", name, _server(name, connector), annotations=_server_annotations(connector))
    for pod in pods:
        yield _pod(pod, name)


def _server(name: str, connector: ConnectorName | None) -> dict[str, Any]:
    selector: dict[str, Any] = {"matchLabels": {"app": name}}
    if connector is not None:
        selector["pdGroup"] = {
            "groupKey": "group",
            "prefillLabels": {"role": "prefill"},
            "decodeLabels": {"role": "decode"},
        }
    ways = {} if connector in (None, "sglang") else {"kvConnector": {"type": connector}}
    return {
        "inferenceEngine": "SGLang" if connector == "sglang" else "vLLM",
        "workloadSelector": selector,
        "workloadPort": {"port": 8000},
        **ways,
    }


def _server_annotations(connector: ConnectorName | None) -> dict[str, str]:
    return {} if connector in (None, "sglang") else {"kvoy.io/prefill-threshold": "0"}


def _pod(pod: Pod, app: str) -> dict[str, Any]:
    annotations = {"kvoy.io/port": str(pod.port)}
    if pod.kv_port:
        annotations["kvoy.io/kv-port"] = str(pod.kv_port)
    labels = {"app": app} if pod.role is None else {"app": app, "group": "g", "role": pod.role}
    status = {"phase": "Running", "podIP": "127.0.0.1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": "default", "labels": labels, "annotations": annotations},
        "status": status,
    }


def _object(
    kind: str, name: str, spec: dict[str, Any], annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "annotations": annotations or {}}
    return {"apiVersion": _GROUP, "kind": kind, "metadata": metadata, "spec": spec}
