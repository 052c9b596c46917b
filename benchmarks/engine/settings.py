"""Every knob of an engine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from benchmarks.engine.faults import Fault

Role = Literal["both", "prefill", "decode"]
ConnectorKind = Literal["none", "nixl", "nixl-push", "mooncake", "lmcache", "http", "sglang"]
"""How KV caches travel; `benchmarks.engine.transfer` says what each one is like."""

ROLES: tuple[str, ...] = get_args(Role)
CONNECTORS: tuple[str, ...] = get_args(ConnectorKind)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One engine. ValueError names the field that is out of range."""

    name: str = "engine"
    """Printable ASCII; the first words of every answer and the ``x-engine-name`` header."""
    model: str = "sim-model"
    """The served model name."""
    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    loras: tuple[str, ...] = ()
    """Adapters loaded at start."""
    max_loras: int = 4
    """Adapters that may run at once; 0 switches LoRA off, with its endpoints and its metric."""
    max_model_len: int = 131_072
    """Tokens of prompt and answer together."""
    block_size: int = 16
    """Tokens per KV block."""
    num_blocks: int = 16_384
    """KV blocks; all of them must hold ``max_model_len`` tokens."""
    data_parallel_size: int = 1
    """Ranks: each has its own queue, its own ``num_blocks`` blocks and its own KV events."""
    max_running: int = 256
    """Of one rank, as all limits and speeds below."""
    max_waiting: int = 1024
    """Requests beyond that get 503."""
    prefill_tokens_per_s: float = 20_000.0
    """Shared by all requests; ``inf`` makes prefill free."""
    inter_token_s: float = 0.01
    """Seconds between two tokens of one answer; 0 sends an answer at once."""
    inter_token_s_per_answer: float = 0.0
    """Added for each further answer that runs."""
    prefill_chunk_tokens: int = 0
    """Prompt tokens computed together with the next token of each answer, which waits for them: with any, a
    prompt slows answers down, as chunked prefill does; 0: it does not."""
    reply_tokens: int = 32
    """Length of an answer whose request does not cut it."""
    prompt_tokens_details: bool = True
    """Whether usage says how many prompt tokens were cached; in vLLM an option, off by default."""
    kv_events: int = -1
    """Port for the KV events of rank 0, rank r has the one r higher; 0 takes free ones, -1 is off."""
    kv_events_replay: int = -1
    """Likewise, the port that answers who missed some."""
    kv_events_topic: str = ""
    kv_events_buffer: int = 10_000
    """Batches that each rank keeps for replay."""
    role: Role = "both"
    """What the engine is for where prefill and decode are apart."""
    connector: ConnectorKind = "none"
    kv_port: int = 0
    """Where other engines reach its KV cache: NIXL's side channel, a bootstrap server; 0 takes a free one."""
    engine_id: str = ""
    """Under which other engines know it; empty takes `name`."""
    tensor_parallel_size: int = 1
    """Only told to other engines, which must be told the same by the router."""
    kv_peers: tuple[str, ...] = ()
    """With lmcache and http: ``host:kv_port`` of the engines whose cached prompts this one can load."""
    transfer_s_per_token: float = 0.00001
    """Seconds for the KV cache of one token to reach another engine: 128 KiB at 100 Gbit/s."""
    handshake_s: float = 0.02
    """Seconds for the first contact between two engines."""
    kv_lease_s: float = 30.0
    """How long a prefill engine keeps the blocks of a prompt that no decode engine has fetched (NIXL)."""
    transfer_timeout_s: float = 480.0
    """How long one leg waits for the other where both begin at once."""
    keep_requests: int = 1000
    """How many requests the journal keeps; 0 keeps none."""
    faults: tuple[Fault, ...] = ()
    """In force from the start."""
    tls_cert: Path | None = None
    """PEM files; both or neither. With them the engine speaks HTTPS only."""
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        if not (self.name and self.name.isascii() and self.name.isprintable()):
            raise ValueError(f"name: {self.name!r} must be printable ASCII, not empty")
        if not self.model:
            raise ValueError("model: must not be empty")
        for field, low in _LEAST.items():
            if not getattr(self, field) >= low:
                raise ValueError(f"{field}: {getattr(self, field)} must be {low} or more")
        if not self.prefill_tokens_per_s > 0:
            raise ValueError(f"prefill_tokens_per_s: {self.prefill_tokens_per_s} must be above 0")
        if self.num_blocks * self.block_size < self.max_model_len:
            raise ValueError(
                f"num_blocks: {self.num_blocks} blocks of {self.block_size} tokens do not hold "
                f"max_model_len ({self.max_model_len}) tokens; raise one or lower the other"
            )
        self._check_transfer()
        if self.loras and not self.max_loras:
            raise ValueError("max_loras: 0 switches LoRA off, but loras names adapters")
        if self.kv_events < 0 <= self.kv_events_replay:
            raise ValueError("kv_events_replay: there is nothing to replay while kv_events is off")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: give both or neither")

    def _check_transfer(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role: {self.role!r} must be one of {', '.join(ROLES)}")
        if self.connector not in CONNECTORS:
            raise ValueError(f"connector: {self.connector!r} must be one of {', '.join(CONNECTORS)}")
        if self.role != "both" and self.connector == "none":
            raise ValueError(f"role: {self.role} needs a connector, such as nixl")
        if self.connector != "none" and self.data_parallel_size > 1:
            raise ValueError("data_parallel_size: must be 1 with a connector; start one engine for each rank")
        if self.kv_peers and self.connector not in ("http", "lmcache"):
            raise ValueError("kv_peers: only the connectors http and lmcache have peers")


_LEAST = {
    "port": 0,
    "max_loras": 0,
    "max_model_len": 2,
    "block_size": 1,
    "data_parallel_size": 1,
    "max_running": 1,
    "max_waiting": 0,
    "inter_token_s": 0,
    "inter_token_s_per_answer": 0,
    "prefill_chunk_tokens": 0,
    "reply_tokens": 1,
    "kv_events": -1,
    "kv_events_replay": -1,
    "kv_events_buffer": 1,
    "keep_requests": 0,
    "kv_port": 0,
    "tensor_parallel_size": 1,
    "transfer_s_per_token": 0,
    "handshake_s": 0,
    "kv_lease_s": 0,
    "transfer_timeout_s": 0,
}
