"""Changes of what engine lives hold, as packed bytes on the cache stream.

A frame is a header of 18 bytes (life u64, namespace u8, operation u8, first position u32, count u32), then
`count` numbers of u64, all little endian. Frames are concatenated. What a namespace or an operation of a
later version means is not known here, so such a frame is skipped; all others are applied in order.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

_HEADER = struct.Struct("<QBBII")

LIMIT = 1024
"""Hashes per frame that writers keep to, so that a reader's view of one life changes in small pieces."""


class Namespace(IntEnum):
    """Two indexes that share nothing."""

    PREFIX = 1
    """Learnt by the workers from their own placements; chains over the bytes of prompts."""
    KV = 2
    """Told by the engines; chains over token ids."""


class Operation(IntEnum):
    """What a frame says of its life."""

    ADD = 1
    """Holds these blocks from now on."""
    REMOVE = 2
    """Holds these blocks no more."""
    CLEAR = 3
    """Holds nothing; no hashes follow."""
    CAPACITY = 4
    """Can hold so many bytes of prompts: the one number that follows."""
    ROTATE = 5
    """A generation is full; the one number that follows is that of the next (`PREFIX`)."""


_NAMESPACES = {int(namespace): namespace for namespace in Namespace}
_OPERATIONS = {int(operation): operation for operation in Operation}
_COUNTS = {Operation.CLEAR: 0, Operation.CAPACITY: 1, Operation.ROTATE: 1}
"""Numbers that follow, where that is not free."""


class FramesCorrupt(ValueError):
    """These bytes are not a sequence of frames; none of them is applied."""


class Frame(NamedTuple):
    """One change of one life."""

    life: int
    namespace: Namespace
    operation: Operation
    first: int
    """Position in its chain of the first block, from 0, where blocks follow each other; 0 for `KV`."""
    packed: bytes
    """Hashes, or the one number that the operation needs, u64 little endian."""

    @property
    def size(self) -> int:
        return len(self.packed) // 8

    def numbers(self, start: int = 0, stop: int | None = None) -> tuple[int, ...]:
        """What is packed, from number `start` to before number `stop`."""
        return numbers(self.packed, start, stop)

    def pack(self) -> bytes:
        """The frame on the wire."""
        head = _HEADER.pack(self.life, self.namespace, self.operation, self.first, self.size)
        return head + self.packed


def packed(hashes: Sequence[int]) -> bytes:
    """Hashes as u64 little endian."""
    return struct.pack(f"<{len(hashes)}Q", *hashes)


def numbers(raw: bytes, start: int = 0, stop: int | None = None) -> tuple[int, ...]:
    """The u64 from number `start` to before number `stop` of packed hashes."""
    some = raw[8 * start :] if stop is None else raw[8 * start : 8 * stop]
    return struct.unpack(f"<{len(some) // 8}Q", some)


def changes(
    life: int, namespace: Namespace, operation: Operation, hashes: Sequence[int], first: int = 0
) -> list[Frame]:
    """Frames of at most `LIMIT` hashes each that add or remove these blocks."""
    return [
        Frame(life, namespace, operation, first + at, packed(hashes[at : at + LIMIT]))
        for at in range(0, len(hashes), LIMIT)
    ]


def clear(life: int, namespace: Namespace) -> Frame:
    """The frame that says that the life holds nothing."""
    return Frame(life, namespace, Operation.CLEAR, 0, b"")


def capacity(life: int, covered_bytes: int) -> Frame:
    """The frame that says how many bytes of prompts the life can hold (`PREFIX`)."""
    return Frame(life, Namespace.PREFIX, Operation.CAPACITY, 0, packed([covered_bytes]))


def rotate(life: int, generation: int) -> Frame:
    """The frame that says that the life's generation of that number begins, if it has not (`PREFIX`)."""
    return Frame(life, Namespace.PREFIX, Operation.ROTATE, 0, packed([generation]))


def pack_all(frames: Sequence[Frame]) -> bytes:
    """Frames on the wire."""
    return b"".join([frame.pack() for frame in frames])


def unpack(raw: bytes) -> list[Frame]:
    """All frames in order, without those of unknown meaning; raises `FramesCorrupt`."""
    frames: list[Frame] = []
    at = 0
    while at < len(raw):
        try:
            life, namespace, operation, first, count = _HEADER.unpack_from(raw, at)
        except struct.error:
            raise FramesCorrupt(f"the header at byte {at} of {len(raw)} is cut off") from None
        at += _HEADER.size
        end = at + 8 * count
        if end > len(raw):
            raise FramesCorrupt(f"{count} hashes at byte {at} reach beyond the end at {len(raw)}")
        if namespace in _NAMESPACES and operation in _OPERATIONS:
            known = _OPERATIONS[operation]
            _check(known, count, at)
            frames.append(Frame(life, _NAMESPACES[namespace], known, first, raw[at:end]))
        at = end
    return frames


def _check(operation: Operation, count: int, at: int) -> None:
    expected = _COUNTS.get(operation, count)
    if count != expected:
        raise FramesCorrupt(f"{operation.name} at byte {at} has {count} numbers instead of {expected}")
