"""Which kind is read by which view."""

from collections.abc import Mapping

from controller.manifests.modelroute import ModelRoute
from controller.manifests.modelserver import ModelServer
from controller.manifests.pod import Pod

NETWORKING = "networking.serving.volcano.sh/v1alpha1"

Object = ModelRoute | ModelServer | Pod

KINDS: Mapping[tuple[str, str], type[Object]] = {
    (NETWORKING, "ModelRoute"): ModelRoute,
    (NETWORKING, "ModelServer"): ModelServer,
    ("v1", "Pod"): Pod,
}
"""(apiVersion, kind) to the view that reads it."""
