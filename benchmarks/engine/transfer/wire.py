"""The messages between two engines, whose form is ours; only mooncake's ``/query`` is as in vLLM."""

import msgspec


class Wanted(msgspec.Struct, frozen=True):
    """``/handshake``, ``/kv`` and ``/release``: the blocks of one prompt, wanted or not any more."""

    connector: str
    engine_id: str | None
    """Whom the caller takes the other for; None if it has no idea."""
    tensor_parallel_size: int | None
    """Likewise."""
    key: str
    prompt: str
    """Its fingerprint: blocks of another prompt would be garbage, though a real engine would not notice."""
    waits: bool
    """Whether the prompt may still be on its way."""
    tokens: int = 0
    """How many the caller lacks."""


class Sought(msgspec.Struct, frozen=True):
    """``/known``: which blocks of a prompt are cached."""

    hashes: list[bytes]


class Found(msgspec.Struct, frozen=True):
    """The answer to `Sought`."""

    blocks: int
    """From the first on."""
