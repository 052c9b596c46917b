"""The base model and the LoRA adapters loaded on it."""

from collections.abc import Iterable


class Models:
    """Names under which the engine answers; adapters come and go at run time."""

    def __init__(self, base: str, adapters: Iterable[str]) -> None:
        self.base = base
        self._adapters = {name: f"/adapters/{name}" for name in adapters}

    @property
    def adapters(self) -> dict[str, str]:
        """Adapter name to the path it was loaded from."""
        return dict(self._adapters)

    def has(self, name: str) -> bool:
        """Whether a request may name this model."""
        return name == self.base or name in self._adapters

    def adapter(self, name: str) -> str | None:
        """The adapter that ``name`` stands for; None for the base model."""
        return name if name in self._adapters else None

    def load(self, name: str, path: str, in_place: bool) -> bool:
        """Add an adapter; False if the name is taken and ``in_place`` does not allow to replace it."""
        if name == self.base or (name in self._adapters and not in_place):
            return False
        self._adapters[name] = path
        return True

    def unload(self, name: str) -> bool:
        """Drop an adapter; False if there is none of that name. Requests that use it run on."""
        return self._adapters.pop(name, None) is not None
