"""What changes by the second and is stated to everybody: requests in flight, and how each engine is.

Every statement is absolute and repeated, so a lost one is healed by the next, and silence means that who
stated it is gone. Statements travel as msgpack on the live stream (`keys.live`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import xxhash


class Load(NamedTuple):
    """What is on its way to one engine."""

    requests: int
    """Requests placed there that have not ended."""
    tokens: int
    """Prompt tokens among them that the engine still has to compute."""


class InFlight(msgspec.Struct, frozen=True, tag="in-flight", omit_defaults=True):
    """What one ext_proc worker has in flight."""

    instance: str
    """One life of one worker."""
    loads: dict[str, Load]
    """Endpoint key to load; in a whole statement, what is absent is zero."""
    whole: bool = False
    """Replaces everything the instance stated before; otherwise only what is named has changed.

    A whole one without loads is a farewell.
    """


class Engine(msgspec.Struct, frozen=True, tag="engine", omit_defaults=True):
    """One engine, or one data-parallel rank of it, as a collector last saw it."""

    endpoint: str
    """Endpoint key."""
    address: str
    """``ip:port``."""
    age_s: float
    """Seconds between the observation and this statement."""
    started: float | None = None
    """When the engine process started, in seconds since 1970: tells one life from the next."""
    failing: str | None = None
    """Why it could not be observed; the values are then those of the last success, if any."""
    asleep: bool = False
    """Asleep or paused: it accepts requests and does not answer them."""
    running: int | None = None
    """Requests that it computes."""
    waiting: int | None = None
    """Requests in its queue."""
    kv_usage: float | None = None
    """Share of KV blocks in use, 0 to 1."""
    ttft_s: float | None = None
    """Mean time to first token over the last interval with requests."""
    tpot_s: float | None = None
    """Mean time per output token over the last interval with requests."""
    adapters: tuple[str, ...] | None = None
    """LoRA adapters it can serve; None where not known."""
    block_size: int | None = None
    """Tokens per KV block."""
    capacity_tokens: int | None = None
    """Tokens that its KV cache holds."""
    kv_events: bool = False
    """A collector follows its KV events, so the exact index tells what it has cached."""

    @property
    def life(self) -> int:
        """Identity of this life of the engine, equal in every process that sees this statement."""
        return life(self.endpoint, self.address, self.started)


Statement = InFlight | Engine

_statements: msgspec.msgpack.Decoder[list[Statement]] = msgspec.msgpack.Decoder(list[Statement])
_encoder = msgspec.msgpack.Encoder()


def encode(statements: Sequence[Statement]) -> bytes:
    """Msgpack bytes of one entry of the live stream."""
    return _encoder.encode(statements)


def decode(raw: bytes) -> list[Statement]:
    """The statements of one entry; raises `msgspec.DecodeError` or `msgspec.ValidationError`."""
    return _statements.decode(raw)


def life(endpoint: str, address: str, started: float | None = None) -> int:
    """Identity (64 bits) of one life of an engine, without coordination between those who use it.

    A reused address, a reused pod name and a restarted process each give another life, so nothing that was
    known of the former one sticks. `started` is None while no collector has seen the engine.
    """
    return xxhash.xxh3_64_intdigest(f"{endpoint}\0{address}\0{started or 0:.3f}".encode())
