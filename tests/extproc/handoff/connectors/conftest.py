from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from extproc.handoff.connector import Leg, Transfer
from extproc.state.snapshot import Source


@pytest.fixture
def transfer() -> Callable[..., Transfer]:
    """A chat request's; fields of the source may be given beside its own."""

    def built(host: str = "10.0.0.1", **other: Any) -> Transfer:
        usual = Transfer(
            request_id="5f0c-77",
            api="chat",
            address="10.0.0.1:8000",
            source=Source(host, 5600, "pod-p"),
            tensor_parallel=4,
            room=2**62 + 1,
            engine_id="eng-1",
            rank=None,
        )
        return replace(usual, **other)

    return built


@pytest.fixture
def fields() -> Callable[[Leg], dict[str, Any]]:
    """What a leg adds to a body, as an engine reads it."""
    return lambda leg: {name: msgspec.json.decode(value) for name, value in leg.fields.items()}
