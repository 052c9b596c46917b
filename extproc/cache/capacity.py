"""How many bytes of prompts an engine's cache holds, about; equal in all processes that assume it."""

ASSUMED_TOKENS = 500_000
"""Of an engine that does not tell."""
BYTES_PER_TOKEN = 4
"""Of a prompt's JSON. What one process learns of the true figure must not enter: replicas would disagree."""


def capacity_bytes(tokens: int | None) -> int:
    """Bytes of prompts that a KV cache of so many tokens holds; None: nobody has told."""
    return (tokens or ASSUMED_TOKENS) * BYTES_PER_TOKEN
