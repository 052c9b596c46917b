"""The base model and the LoRA adapters loaded on it."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Adapter:
    """A loaded LoRA adapter."""

    name: str
    number: int
    """Counts from 1 in the order of loading; no two loads share one."""


class Models:
    """Names under which the engine answers; adapters come and go at run time."""

    def __init__(self, base: str, adapters: Iterable[str]) -> None:
        self.base = base
        self._numbers = itertools.count(1)
        self._adapters: dict[str, tuple[Adapter, str]] = {}
        for name in adapters:
            self._add(name, f"/adapters/{name}")

    @property
    def adapters(self) -> dict[str, str]:
        """Adapter name to the path it was loaded from."""
        return {name: path for name, (_, path) in self._adapters.items()}

    def has(self, name: str) -> bool:
        """Whether a request may name this model."""
        return name == self.base or name in self._adapters

    def adapter(self, name: str) -> Adapter | None:
        """The adapter that ``name`` stands for; None for the base model."""
        return self._adapters[name][0] if name in self._adapters else None

    def load(self, name: str, path: str, in_place: bool) -> bool:
        """Add an adapter; False if the name is taken and ``in_place`` does not allow to replace it."""
        if name == self.base or (name in self._adapters and not in_place):
            return False
        self._add(name, path)
        return True

    def unload(self, name: str) -> bool:
        """Drop an adapter; False if there is none of that name. Requests that use it run on."""
        return self._adapters.pop(name, None) is not None

    def _add(self, name: str, path: str) -> None:
        self._adapters[name] = Adapter(name, next(self._numbers)), path
