"""What the engine says.

The first words name the engine, so a client knows who served; the rest depends on the prompt alone, so equal
prompts get equal answers.
"""

import zlib

from benchmarks.engine.tokens import BYTES_PER_TOKEN, Tokens, encode

_WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "field", "grove", "heath", "inlet", "jetty", "kiosk"),
    *("ledge", "maple", "north", "ocean", "prism", "quarry", "river", "stone", "tower", "umber", "willow"),
)


def reply(name: str, prompt: Tokens, length: int) -> Tokens:
    """``length`` tokens that start with ``"<name> says"``; fewer tokens cut even that short."""
    turn = zlib.crc32(prompt.tobytes()) % len(_WORDS)
    round_trip = " ".join(_WORDS[turn:] + _WORDS[:turn]) + " "
    size = length * BYTES_PER_TOKEN
    opening = f"{name} says "
    repeats = size // len(round_trip) + 1
    return encode((opening + round_trip * repeats)[:size])
