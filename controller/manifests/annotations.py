"""The annotations that kvoy reads: what its API has no field for."""

from collections.abc import Iterator, Mapping

from controller.manifests.problem import Fault
from controller.manifests.shape import quoted

PREFIX = "kvoy.io/"

TLS_SERVER_NAME = "kvoy.io/tls-server-name"
TLS_CA_FILE = "kvoy.io/tls-ca-file"
TLS_INSECURE_SKIP_VERIFY = "kvoy.io/tls-insecure-skip-verify"
STREAM_USAGE = "kvoy.io/stream-usage"
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
