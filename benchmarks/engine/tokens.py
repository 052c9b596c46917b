"""Text to token ids and back: four UTF-8 bytes make a token, so no vocabulary is needed.

A text whose length is no multiple of four ends in a token padded with NUL bytes. `decode` drops NULs, so it
gives back every text that holds none.
"""

import sys
from array import array
from collections.abc import Iterable
from typing import TypeAlias

BYTES_PER_TOKEN = 4
LARGEST_TOKEN = 2**32 - 1

Tokens: TypeAlias = "array[int]"
"""Token ids as unsigned 32-bit integers: 5 MB of text are encoded in one copy."""


def encode(text: str) -> Tokens:
    """The tokens of ``text``; empty for an empty text."""
    raw = text.encode("utf-8", "surrogatepass")
    tokens = array("I")
    tokens.frombytes(raw + b"\0" * (-len(raw) % BYTES_PER_TOKEN))
    return tokens


def of_ids(ids: Iterable[int]) -> Tokens:
    """Token ids that a client sent; ValueError names the first one outside 0 to 2**32-1."""
    tokens = array("I")
    for token in ids:
        if not 0 <= token <= LARGEST_TOKEN:
            raise ValueError(f"Token id {token} is out of vocabulary")
        tokens.append(token)
    return tokens


def decode(tokens: Tokens) -> str:
    """The text of ``tokens``; bytes that are no UTF-8 become U+FFFD."""
    return tokens.tobytes().replace(b"\0", b"").decode("utf-8", "replace")


def piece(token: int) -> str:
    """The text of one token."""
    return token.to_bytes(BYTES_PER_TOKEN, sys.byteorder).replace(b"\0", b"").decode("utf-8", "replace")
