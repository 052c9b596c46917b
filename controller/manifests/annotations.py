"""The annotations that kvoy reads: what its API has no field for."""

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
PORT = "kvoy.io/port"

ANNOTATIONS: Mapping[str, Mapping[str, str]] = {
    "ModelRoute": {},
    "ModelServer": {
        TLS_SERVER_NAME: "Name sent to the pods as SNI and required in their certificate, where "
        "spec.workloadPort.protocol is https. Default: <name>.<namespace>.svc.",
        TLS_CA_FILE: "Absolute path, on Envoy's file system, of the PEM bundle that signs the pods' "
        "certificates. Default: the system's bundle.",
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
    },
    "Pod": {
        PORT: "Port of the engine in this pod, in place of the ModelServer's spec.workloadPort.port.",
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
