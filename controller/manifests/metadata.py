"""The metadata of an object: what names it, selects it, and when it was made."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

import msgspec

from controller.manifests.problem import Fault
from controller.manifests.shape import quoted

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_PART = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """The fields that kvoy reads; Kubernetes' others are accepted and have no effect."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None

    @property
    def created(self) -> float:
        """Seconds since 1970; 0 if the object does not say."""
        return 0.0 if self.creation_timestamp is None else self.creation_timestamp.timestamp()


def faults(metadata: Metadata) -> Iterator[Fault]:
    """Names that Kubernetes would not accept."""
    if not is_object_name(metadata.name):
        yield Fault(
            "metadata.name",
            f"{quoted(metadata.name)} is not a Kubernetes name: at most 253 of a-z, 0-9, '-' and '.', "
            "with a letter or digit at both ends of each part",
        )
    if not _LABEL.fullmatch(metadata.namespace):
        yield Fault(
            "metadata.namespace",
            f"{quoted(metadata.namespace)} is not a namespace: at most 63 of a-z, 0-9 and '-', "
            "with a letter or digit at both ends",
        )


def is_object_name(text: str) -> bool:
    """Whether Kubernetes would take `text` as the name of an object."""
    return len(text) <= 253 and all(_PART.fullmatch(part) for part in text.split("."))


def is_dns_name(text: str) -> bool:
    """Whether `text` is a lower-case DNS name."""
    return len(text) <= 253 and all(_LABEL.fullmatch(part) for part in text.split("."))
