"""What one engine life holds, at rest: written by the collector that owns the engine, loaded by workers.

A snapshot names the position on the cache stream up to which it includes everything. Frames after it are
applied again by who loads it; it may include some of them already, because what is said last of a block
holds.
"""

import msgspec


class PrefixSnapshot(msgspec.Struct, frozen=True, tag="prefix"):
    """A life in the `PREFIX` namespace (`generations.Generations`)."""

    position: str
    """Id of the last cache-stream entry that is included."""
    capacity: int
    """Bytes of prompts that the life can hold."""
    young: bytes
    """Hashes of the young generation, u64 little endian, parents before children."""
    young_bytes: int
    """Bytes of prompts that the young generation covers."""
    old: bytes
    """Hashes of the old generation."""
    generation: int = 0
    """Number of the young generation, u64."""

    def __post_init__(self) -> None:
        _check_packed(self, 8, "young", "old")


class KvSnapshot(msgspec.Struct, frozen=True, tag="kv"):
    """A life in the `KV` namespace; row by row, what the collector's ledger knows."""

    position: str
    """Id of a cache-stream entry: all entries up to it are included."""
    own: bytes
    """Our own chained hashes, u64 little endian: all that workers read."""
    engine: bytes
    """The engine's hash of each, u64 little endian."""
    counts: bytes
    """Copies of each that the engine holds, u32 little endian."""
    sequence: int
    """Number of the last event batch of the engine that is included; -1 for none."""

    def __post_init__(self) -> None:
        _check_packed(self, 8, "own", "engine")
        _check_packed(self, 4, "counts")
        if not len(self.own) == len(self.engine) == 2 * len(self.counts):
            raise ValueError("own, engine and counts are not equally many")


Snapshot = PrefixSnapshot | KvSnapshot

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Snapshot] = msgspec.msgpack.Decoder(Snapshot)


def encode(snapshot: Snapshot) -> bytes:
    """Msgpack bytes, as stored under `keys.cache_snapshot`."""
    return _encoder.encode(snapshot)


def decode(raw: bytes) -> Snapshot:
    """The stored snapshot; raises `msgspec.DecodeError`, of which `msgspec.ValidationError` is one."""
    return _decoder.decode(raw)


def _check_packed(snapshot: msgspec.Struct, width: int, *fields: str) -> None:
    for field in fields:
        if len(getattr(snapshot, field)) % width:
            raise ValueError(f"{field} is not a whole number of {width}-byte values")
