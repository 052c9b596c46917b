"""What a body says about a transfer."""

from typing import Any

import msgspec


class TransferFields(msgspec.Struct, kw_only=True):
    """Fields that every generation endpoint has; which of them count depends on the connector."""

    kv_transfer_params: dict[str, Any] | None = None
    """vLLM's connectors."""
    bootstrap_host: Any = None
    bootstrap_port: Any = None
    bootstrap_room: Any = None
    """SGLang; a vLLM ignores them, whatever they are."""
