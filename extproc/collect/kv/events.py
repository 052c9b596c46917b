"""What engines publish about their KV cache: msgpack bytes to events, one form for all engines; pure.

A batch is an array ``[time stamp, events, data-parallel rank]``. Its events are maps with a ``type`` (vLLM
from 0.24, SGLang 0.5.23) or arrays that begin with it (before). Events of unknown types, fields of unknown
names and blocks of other tiers than the GPU are skipped.
"""

import sys
from array import array
from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

import msgspec

_U64 = (1 << 64) - 1
_GPU = (None, "GPU")
_REMOTE = "REMOTE"

Hash = int | bytes
ExtraKeys = list[list[Any] | None] | None


class Malformed(Exception):
    """A batch whose effect on the cache can not be known."""


class Stored(NamedTuple):
    """Consecutive blocks of one sequence were cached."""

    hashes: list[int]
    """The engine's names for the blocks, 64 bits each."""
    parent: int | None
    """Engine hash of the block before the first; None at the start of a sequence."""
    token_ids: bytes
    """u32 little endian, `block_size` per block."""
    block_size: int
    adapter: str
    """LoRA adapter; empty for the base model."""
    salt: str
    """The client's ``cache_salt``, told only at the start of a sequence; else empty."""
    extras: Sequence[bytes]
    """Per block, whatever else tells it from one with equal tokens (images); empty where no block has any."""
    group: int | None
    kind: str | None
    """What sort of attention the group of layers has; None where the engine does not tell."""


class Removed(NamedTuple):
    """One physical copy of each of these blocks was evicted."""

    hashes: list[int]
    group: int | None


class Cleared(NamedTuple):
    """Everything was dropped."""


Event = Stored | Removed | Cleared


class Batch(NamedTuple):
    """What an engine did in one step."""

    at: float
    """Seconds since 1970 by the engine's clock; 0 where it tells nonsense."""
    events: list[Event]
    skipped: int
    """Events that were not understood, as opposed to understood and not counted."""


class _Stored(msgspec.Struct, tag="BlockStored", tag_field="type", gc=False):
    block_hashes: list[Hash]
    parent_block_hash: Hash | None
    token_ids: list[int]
    block_size: int
    lora_id: Any = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: ExtraKeys = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: Any = None
    locality: str | None = None
    ownership: Any = None
    session_id: Any = None
    cache_salt: str | None = None


class _Removed(msgspec.Struct, tag="BlockRemoved", tag_field="type", gc=False):
    block_hashes: list[Hash]
    medium: str | None = None
    group_idx: int | None = None
    locality: str | None = None


class _Cleared(msgspec.Struct, tag="AllBlocksCleared", tag_field="type", gc=False):
    pass


class _StoredRow(_Stored, tag="BlockStored", array_like=True, gc=False):
    pass


class _RemovedRow(_Removed, tag="BlockRemoved", array_like=True, gc=False):
    pass


class _ClearedRow(_Cleared, tag="AllBlocksCleared", array_like=True, gc=False):
    pass


_Map = _Stored | _Removed | _Cleared
_Row = _StoredRow | _RemovedRow | _ClearedRow


class _Maps(msgspec.Struct, array_like=True, gc=False):
    at: float
    events: list[_Map]


class _Rows(msgspec.Struct, array_like=True, gc=False):
    at: float
    events: list[_Row]


class _Mixed(msgspec.Struct, array_like=True, gc=False):
    at: float
    events: list[Any]


_maps = msgspec.msgpack.Decoder(_Maps)
_rows = msgspec.msgpack.Decoder(_Rows)
_mixed = msgspec.msgpack.Decoder(_Mixed)
_encode = msgspec.msgpack.Encoder().encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for broken bytes, for text that is not UTF-8, and for nesting without end."""


def decode(payload: bytes) -> Batch:
    """The batch in a payload; raises `Malformed`."""
    for decoder in (_maps, _rows):
        try:
            batch = decoder.decode(payload)
        except _UNREADABLE:
            continue
        return _batch(batch.at, batch.events)
    return _sorted_out(payload)


def _sorted_out(payload: bytes) -> Batch:
    """A batch that holds something unknown: the rest of it counts all the same."""
    try:
        mixed = _mixed.decode(payload)
    except _UNREADABLE as error:
        raise Malformed(f"a batch of KV events can not be read: {error}") from None
    known: list[_Map | _Row] = []
    for event in mixed.events:
        known += _recognised(event)
    batch = _batch(mixed.at, known)
    return batch._replace(skipped=batch.skipped + len(mixed.events) - len(known))


def _recognised(event: Any) -> list[_Map | _Row]:
    """The event, or nothing; raises `Malformed` for one that may take blocks away."""
    form: Any = _Map if isinstance(event, dict) else _Row
    try:
        return [msgspec.convert(event, form)]
    except msgspec.ValidationError as error:
        if (name := _type(event)) in ("BlockRemoved", "AllBlocksCleared"):
            raise Malformed(f"{name} of an unknown form: {error}") from None
        return []


def _type(event: Any) -> object:
    if isinstance(event, dict):
        return event.get("type")
    return event[0] if isinstance(event, list) and event else None


def _batch(at: float, told: "Sequence[_Map | _Row]") -> Batch:
    events: list[Event] = []
    skipped = 0
    for event in told:
        if isinstance(event, _Cleared):
            events.append(Cleared())
        elif event.medium not in _GPU or event.locality == _REMOTE:
            continue
        elif isinstance(event, _Removed):
            events.append(Removed(_names(event.block_hashes), event.group_idx))
        elif (stored := _stored(event)) is not None:
            events.append(stored)
        else:
            skipped += 1
    return Batch(at if isfinite(at) else 0.0, events, skipped)


def _stored(event: _Stored) -> Stored | None:
    """None for blocks whose tokens are not told one by one."""
    count = len(event.block_hashes)
    if count * event.block_size != len(event.token_ids) or not event.token_ids:
        return None
    try:
        token_ids = _packed(event.token_ids)
    except OverflowError:
        return None
    parent = None if event.parent_block_hash is None else _name(event.parent_block_hash)
    adapter = _adapter(event)
    salt = event.cache_salt or ""
    extras: Sequence[bytes] = ()
    if event.extra_keys is not None and any(event.extra_keys):
        if len(event.extra_keys) != count:
            return None
        found, extras = _told_apart(event.extra_keys, adapter, parent is None)
        salt = salt or found
    return Stored(
        _names(event.block_hashes),
        parent,
        token_ids,
        event.block_size,
        adapter,
        salt,
        extras,
        event.group_idx,
        event.kv_cache_spec_kind,
    )


def _packed(token_ids: list[int]) -> bytes:
    """u32 little endian; raises OverflowError for what is no token id (placeholders of images may be)."""
    packed = array("I", token_ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _name(engine_hash: Hash) -> int:
    """64 bits of what may be signed (SGLang) or a whole digest (vLLM on request: its last 8 bytes count)."""
    if isinstance(engine_hash, bytes):
        return int.from_bytes(engine_hash[-8:], "big")
    return engine_hash & _U64


def _names(engine_hashes: list[Hash]) -> list[int]:
    return [one & _U64 if type(one) is int else _name(one) for one in engine_hashes]


def _adapter(event: _Stored) -> str:
    """The LoRA adapter; one without a name gets one that nobody can ask for."""
    if event.lora_name or event.lora_id is None:
        return event.lora_name or ""
    return f"\0{event.lora_id}"


def _told_apart(
    extra_keys: Sequence[list[Any] | None], adapter: str, opening: bool
) -> tuple[str, Sequence[bytes]]:
    """The salt among what the engine hashes besides the tokens, and per block everything else.

    vLLM lists the adapter, pairs of image and offset, the salt (first block only) and digests of embedded
    prompts, in this order; bare, or in lists that begin with their source.
    """
    salt, first = _identity(extra_keys[0] or (), adapter, opening)
    extras = [first] + [_identity(keys or (), adapter, False)[1] for keys in extra_keys[1:]]
    return salt, extras if any(extras) else ()


def _identity(keys: Sequence[Any], adapter: str, opening: bool) -> tuple[str, bytes]:
    salt = ""
    rest: list[Any] = []
    for key in keys[1:] if adapter and keys and keys[0] == adapter else keys:
        match key:
            case ["lora", *_]:
                pass
            case ["cache_salt", str(told)]:
                salt = told
            case ["mm" | "prompt_embeds", *identity]:
                rest += identity
            case list():
                rest += key
            case str() if opening and not salt:
                salt = key
            case _:
                rest.append(key)
    return salt, _encode(rest) if rest else b""
