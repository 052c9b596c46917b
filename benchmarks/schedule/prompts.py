"""Chat requests of one size: their beginnings are those of a few conversations, or new."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

BLOCK_BYTES = 64
BLOCK_TOKENS = 16
"""Of an engine's KV cache; with 4 bytes of text per token as long as a block of text."""
MODEL = "bench"
CONVERSATIONS = 16

_KNOWN = (1.0, 1.0, 0.5, 0.0)
"""Share of a prompt that was asked before, in turn: all but its end, half, nothing."""
_HEAD = b'{"model":"%b","stream":true,"messages":[{"role":"user","content":"' % MODEL.encode()
_TAIL = b'"}],"max_tokens":16}'
_AROUND = len(b'[{"role":"user","content":""}]')
_UNIQUE = 16
"""Characters of the number by which each prompt differs from all others."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request."""

    body: bytes
    ids: bytes
    """Its token ids, u32 little endian: as many as its text would have."""


class Prompts:
    """Draws requests whose prompts are `blocks` blocks of 64 bytes of JSON, or of 16 token ids, long."""

    def __init__(self, blocks: int, rng: Random) -> None:
        self.blocks = blocks
        self._rng = rng
        size = blocks * BLOCK_BYTES - _AROUND
        self._texts = [_text(size, rng) for _ in range(CONVERSATIONS + 1)]
        self._ids = [_ids(blocks * BLOCK_TOKENS, rng) for _ in range(CONVERSATIONS + 1)]
        self._count = 0

    @property
    def known(self) -> Sequence[Prompt]:
        """The conversations, as they were asked before."""
        pairs = zip(self._texts[:-1], self._ids[:-1], strict=True)
        return [Prompt(_HEAD + text + _TAIL, ids) for text, ids in pairs]

    def draw(self) -> Prompt:
        """The next request; none is like another."""
        known = _KNOWN[self._count % len(_KNOWN)]
        self._count += 1
        at = self._rng.randrange(CONVERSATIONS)
        number = b"%016x" % self._rng.getrandbits(64)
        text = _joined(self._texts[at], self._texts[-1], known, number)
        ids = _joined(self._ids[at], self._ids[-1], known, number)
        return Prompt(_HEAD + text + _TAIL, ids)


def prompts_of(sizes: Sequence[int]) -> list[Prompts]:
    """For each size in blocks; the same conversations in every process."""
    return [Prompts(blocks, Random(blocks)) for blocks in sizes]


def _joined(old: bytes, new: bytes, known: float, number: bytes) -> bytes:
    """So much of the old one, a number that no other has, and the rest of the new one."""
    kept = min(int(len(old) * known) // _UNIQUE * _UNIQUE, len(old) - _UNIQUE)
    return old[:kept] + number + new[kept + _UNIQUE :]


def _text(size: int, rng: Random) -> bytes:
    return rng.randbytes(size // 2 + 1).hex().encode()[:size]


def _ids(count: int, rng: Random) -> bytes:
    return array("I", [rng.getrandbits(17) for _ in range(count)]).tobytes()
