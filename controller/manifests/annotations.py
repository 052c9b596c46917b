"""The annotations that kvoy reads: what its API has no field for."""

import re
from collections.abc import Iterator, Mapping

from controller.manifests.problem import Fault
from controller.manifests.shape import quoted

PREFIX = "kvoy.io/"

TLS_SERVER_NAME = "kvoy.io/tls-server-name"
TLS_CA_FILE = "kvoy.io/tls-ca-file"
TLS_INSECURE_SKIP_VERIFY = "kvoy.io/tls-insecure-skip-verify"
STREAM_USAGE = "kvoy.io/stream-usage"
DATA_PARALLEL_SIZE = "kvoy.io/data-parallel-size"
SCHEDULER = "kvoy.io/scheduler"
TOKENIZER = "kvoy.io/tokenizer"
KV_EVENTS = "kvoy.io/kv-events"
KV_EVENTS_REPLAY = "kvoy.io/kv-events-replay"
CLIENT_CONTROL = "kvoy.io/client-control"
PREFILL_THRESHOLD = "kvoy.io/prefill-threshold"
PREFILL_TIMEOUT = "kvoy.io/prefill-timeout"
PREFILL_FALLBACK = "kvoy.io/prefill-fallback"
PREFILL_TENSOR_PARALLEL_SIZE = "kvoy.io/prefill-tensor-parallel-size"
PORT = "kvoy.io/port"
KV_PORT = "kvoy.io/kv-port"
KV_ENGINE_ID = "kvoy.io/kv-engine-id"

_NUMBER = re.compile("0|[1-9][0-9]{0,9}", re.ASCII)

ANNOTATIONS: Mapping[str, Mapping[str, str]] = {
    "ModelRoute": {},
    "ModelServer": {
        TLS_SERVER_NAME: "Name sent to the pods as SNI and required in their certificate, where "
        "spec.workloadPort.protocol is https. Default: <name>.<namespace>.svc.",
        TLS_CA_FILE: "Absolute path, on the file systems of Envoy and (with pdGroup) of the workers, of the "
        "PEM bundle that signs the pods' certificates. Default: the system's bundle.",
        TLS_INSECURE_SKIP_VERIFY: '"true" accepts any certificate from the pods. Default: "false".',
        STREAM_USAGE: '"always" asks the engine for token usage in every streamed answer, "client" only '
        'where the client asks for it. Default: "always".',
        SCHEDULER: "How endpoints of this ModelServer are chosen: YAML of the same form as the scheduler "
        "configuration, whose place it takes.",
        DATA_PARALLEL_SIZE: 'Data-parallel ranks of each pod, "1" to "64"; each is an endpoint of its own. '
        'Default: "1".',
        TOKENIZER: "Directory of the model's tokeniser below the workers' --tokenizers. Default: the "
        "model's name.",
        KV_EVENTS: 'Where each pod publishes its KV events, such as "tcp://*:5557" (rank r on the port plus '
        'r), or "off". Default: the engine is asked.',
        KV_EVENTS_REPLAY: 'Where each pod replays its KV events, such as "tcp://*:5558"; needs '
        "kvoy.io/kv-events. Default: nowhere.",
        CLIENT_CONTROL: '"keep" lets clients set the fields and headers that steer engines, such as '
        'kv_transfer_params; "strip" removes them. Default: "strip".',
        PREFILL_THRESHOLD: "Prompt tokens that the decode endpoint lacks, below which it computes them "
        'itself: "0" (never) to "2147483647". Needs pdGroup. Default: "256".',
        PREFILL_TIMEOUT: 'Longest wait for one prefill endpoint, "10ms" to "140s"; two are tried at most. '
        'Needs pdGroup. Default: "30s".',
        PREFILL_FALLBACK: 'What follows where no prefill endpoint does its part: "decode", the decode '
        'endpoint computes the prompt too, or "error", the client gets 502 or 504. Needs pdGroup. '
        'Default: "decode".',
        PREFILL_TENSOR_PARALLEL_SIZE: 'Tensor-parallel size of the prefill engines, "1" to "64", which the '
        'connector nixl-push has to tell decode engines. Needs pdGroup. Default: "1".',
        KV_PORT: "Port on which decode engines ask the prefill pods for KV caches; for the connectors "
        "nixl-push and mooncake, and for SGLang. Needs pdGroup. Default: 5600 (nixl-push) or 8998.",
    },
    "Pod": {
        PORT: "Port of the engine in this pod, in place of the ModelServer's spec.workloadPort.port.",
        KV_PORT: "Port on which decode engines ask this pod for KV caches, in place of the ModelServer's.",
        KV_ENGINE_ID: "What the engine in this pod is called towards decode engines (engine_id of its "
        "--kv-transfer-config), at most 256 characters. Default: the pod's name.",
    },
}
"""Kind to annotation to its meaning."""


def unknown(kind: str, annotations: Mapping[str, str]) -> Iterator[Fault]:
    """A fault for each annotation under our prefix that has no meaning on this kind."""
    known = ANNOTATIONS[kind]
    for name in annotations:
        if name.startswith(PREFIX) and name not in known:
            hint = f"one of {', '.join(known)}" if known else "none"
            yield Fault(at(name), f"unknown annotation; a {kind} may carry {hint}")


def at(name: str) -> str:
    """The field path of an annotation."""
    return f"metadata.annotations[{quoted(name)}]"


def one_of(annotations: Mapping[str, str], name: str, values: tuple[str, ...]) -> Iterator[Fault]:
    """A fault if the annotation is given and is none of `values`."""
    given = annotations.get(name, values[0])
    if given not in values:
        yield Fault(at(name), f"{quoted(given)} must be one of {', '.join(quoted(v) for v in values)}")


def is_number(text: str, least: int, most: int) -> bool:
    """Whether `text` is a whole number within the bounds: decimal, without sign or leading zeros."""
    return _NUMBER.fullmatch(text) is not None and least <= int(text) <= most


def number(
    annotations: Mapping[str, str], name: str, least: int, most: int, kind: str = "number"
) -> Iterator[Fault]:
    """A fault if the annotation is given and is no whole number within the bounds, which is called `kind`."""
    given = annotations.get(name)
    if given is not None and not is_number(given, least, most):
        yield Fault(at(name), f"{quoted(given)} is not a {kind} from {least} to {most}")


def port(annotations: Mapping[str, str], name: str) -> Iterator[Fault]:
    """A fault if the annotation is given and is no port."""
    yield from number(annotations, name, 1, 65535, "port")
