"""What is wrong with a manifest, and where."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong inside one object."""

    field: str
    """Path from the object's root, as in ``spec.rules[0].modelMatch.headers["user-type"].regex``."""
    message: str
    """What is wrong and what to do about it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in one file; as text, one line that says where and what."""

    file: str
    """Path relative to the directory of manifests; empty for the directory as a whole."""
    object: str
    """``ModelRoute default/chat``; empty if the file as a whole is at fault."""
    field: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.object, self.field, self.message) if part)
