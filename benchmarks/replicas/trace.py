"""Conversations with shared beginnings, as arrivals in time."""

import json
from dataclasses import dataclass
from random import Random

_SYLLABLES = ("ka", "ri", "mo", "te", "lu", "sen", "dor", "vi", "pal", "no", "gre", "sto", "min", "ar", "bel")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request."""

    at_s: float
    """Since the beginning of the trace."""
    messages: bytes
    """JSON list of chat messages."""
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What a trace looks like."""

    tenants: int = 6
    """Distinct system prompts; popularity falls as 1/rank (Zipf)."""
    conversations: int = 160
    turns: int = 5
    system_bytes: int = 6000
    """Of the first tenant; each further one has a tenth more."""
    user_bytes: int = 1200
    """Mean length of a question (exponential)."""
    answer_tokens: int = 60
    rate: float = 80.0
    """Requests per second (Poisson)."""
    think_s: float = 0.5
    """Mean pause between an answer and the next question of a conversation."""


def conversations(shape: Shape, rng: Random) -> list[Arrival]:
    """A trace in order of time; equal for equal generators."""
    systems = [_text(shape.system_bytes * (10 + at) // 10, rng) for at in range(shape.tenants)]
    popularity = [1 / rank for rank in range(1, shape.tenants + 1)]
    first_rate = shape.rate / shape.turns
    arrivals: list[Arrival] = []
    start = 0.0
    for _ in range(shape.conversations):
        start += rng.expovariate(first_rate)
        system = rng.choices(systems, popularity)[0]
        arrivals += _conversation(shape, system, start, rng)
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def burst(at_s: float, count: int, size: int, rng: Random) -> list[Arrival]:
    """`count` requests with the same prompt, of `size` bytes that nobody has seen before, at once."""
    messages = json.dumps([{"role": "user", "content": _text(size, rng)}]).encode()
    return [Arrival(at_s, messages, 60)] * count


def _conversation(shape: Shape, system: str, start: float, rng: Random) -> list[Arrival]:
    messages = [{"role": "system", "content": system}]
    found = []
    at = start
    for _ in range(shape.turns):
        messages.append(
            {"role": "user", "content": _text(40 + int(rng.expovariate(1 / shape.user_bytes)), rng)}
        )
        found.append(Arrival(at, json.dumps(messages).encode(), shape.answer_tokens))
        messages.append({"role": "assistant", "content": _text(shape.answer_tokens * 4, rng)})
        at += 0.7 + rng.expovariate(1 / shape.think_s)
    return found


def _text(size: int, rng: Random) -> str:
    words = ("".join(rng.choices(_SYLLABLES, k=2)) for _ in range(size // 4))
    return " ".join(words)[:size]
