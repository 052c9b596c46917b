"""A prompt as a chain of block hashes: each covers its block and, by its seed, everything before it.

    h(i) = xxh3_64(block i, seed = h(i - 1)),  h(-1) = a root

So equal hashes mean equal prompts up to there, and one look-up of a hash stands for the whole prefix. Only
full blocks are hashed. xxh3 is not made to withstand an adversary: the root contains a secret of the
deployment, and a wrong match costs a recomputation, never a wrong answer, since engines hash by themselves.
"""

from functools import lru_cache
from struct import Struct

from xxhash import xxh3_64_intdigest

# Blocks of prefix chains: 64 of 64 B, then 128 of 256 B, then 1 KB each.
_FINE = 64
_MIDDLE = 256
_COARSE = 1024
_FINE_COUNT = 64
_MIDDLE_COUNT = 192
"""Fine and middle blocks together."""
_FINE_END = _FINE_COUNT * _FINE
_MIDDLE_END = _FINE_END + (_MIDDLE_COUNT - _FINE_COUNT) * _MIDDLE

_CUT_AT_ONCE = 256


def prefix_root(model: str, adapter: str | None, salt: str | None, secret: bytes) -> int:
    """Where the chains of prompts to one model begin: prompts with another root share nothing.

    `salt` is the request's ``cache_salt``. None and "" mean the same: there is none.
    """
    return _root("prefix", model, adapter or "", salt or "", secret=secret)


def kv_root(adapter: str | None, salt: str | None, secret: bytes) -> int:
    """Where the chains of token ids begin, the same in workers and collectors.

    An engine has one model, so the model is not part of it. None and "" mean the same: there is none.
    """
    return _root("kv", adapter or "", salt or "", secret=secret)


def prefix_chain(root: int, text: bytes | memoryview) -> list[int]:
    """Hashes of a prompt's bytes in blocks that grow: 64 of 64 B, 128 of 256 B, then 1 KB each.

    Fine where prompts usually part (system prompt, tools, first question), and short for long ones: 546
    blocks for 400 KB.
    """
    fine = _chained(root, text, 0, min(len(text), _FINE_END), _FINE)
    if len(text) < _FINE_END + _MIDDLE:
        return fine
    fine += _chained(fine[-1], text, _FINE_END, min(len(text), _MIDDLE_END), _MIDDLE)
    if len(text) >= _MIDDLE_END + _COARSE:
        fine += _chained(fine[-1], text, _MIDDLE_END, len(text), _COARSE)
    return fine


def kv_chain(root: int, token_ids: bytes, block_size: int) -> list[int]:
    """Hashes of token ids (u32 little endian) in blocks of `block_size` tokens."""
    return _chained(root, token_ids, 0, len(token_ids), 4 * block_size)


def bytes_of(depth: int) -> int:
    """Bytes that the first `depth` blocks of a prefix chain cover."""
    if depth <= _FINE_COUNT:
        return depth * _FINE
    if depth <= _MIDDLE_COUNT:
        return _FINE_END + (depth - _FINE_COUNT) * _MIDDLE
    return _MIDDLE_END + (depth - _MIDDLE_COUNT) * _COARSE


def block_bytes(position: int) -> int:
    """Bytes of the block at that position of a prefix chain."""
    if position < _FINE_COUNT:
        return _FINE
    return _MIDDLE if position < _MIDDLE_COUNT else _COARSE


def _root(kind: str, *parts: str, secret: bytes) -> int:
    # Lengths go in, so that no two lists of parts read the same.
    named = b"".join(
        b"%d:%b" % (len(part), part)
        for part in (text.encode(errors="surrogatepass") for text in (kind, *parts))
    )
    return xxh3_64_intdigest(named + secret)


def _chained(seed: int, raw: bytes | memoryview, start: int, end: int, size: int) -> list[int]:
    """The full blocks; one C call cuts many, which slices one by one would take 5 times as long for."""
    found: list[int] = []
    count = (end - start) // size
    while count > 0:
        cut = min(count, _CUT_AT_ONCE)
        blocks = _cutter(size, cut).unpack_from(raw, start)
        found += [seed := xxh3_64_intdigest(block, seed) for block in blocks]
        start += cut * size
        count -= cut
    return found


@lru_cache(maxsize=1024)
def _cutter(size: int, count: int) -> Struct:
    return Struct(f"{size}s" * count)
