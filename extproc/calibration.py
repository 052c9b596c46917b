"""What answers teach about the engines: how far to believe in a cache, how much it holds, its speed.

Every answer tells how many tokens of its prompt the engine had cached. Held against what was predicted when
the request was placed, that corrects:

* **belief** in what is known of a life's cache: a moving average of actual / predicted. It scales what later
  predictions promise, so an engine whose cache is not what it seems stops attracting requests at once;
* **emptiness**: several predictions in a row that fail wholly, each made after the failure before it was
  known, mean a restart, or a reset of the cache, that nobody announced: what was learnt of it is forgotten;
* **capacity**: predictions that fail singly mean that the engine evicts sooner than assumed: the capacity
  that all workers assume shrinks by a fifth, and creeps back while predictions hold, as TCP's window does.

The same answers tell how many bytes of JSON make a token, and how many prompt tokens a second an engine
computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from extproc.accesslog import End, Outcome
from extproc.cache.chain import bytes_of

BYTES_PER_TOKEN = 4.0
"""Of a prompt's JSON, before answers tell."""
PREFILL_TOKENS_PER_S = 10_000.0
"""Of an engine, before answers tell."""
_LEAST_PREDICTED = 128
"""Tokens; smaller predictions are within the rounding of blocks."""
_EMPTY_AFTER = 3
"""Predictions in a row of which less than a tenth came true."""
_DECODED_AT_MOST = 0.8
"""Share of a request's time beyond which its answer, not its prompt, is what took long."""
_WEIGHT = 0.3
"""Of the newest sample in a moving average."""
_AS_GOOD_AS_TRUE = 0.95
"""Share of a prediction that counts as all of it: blocks end where prompts do not."""
_TRUSTED = 0.99
"""Trust that makes no difference."""
_SHRINK, _GROW = 0.8, 1.01
_TELL_CHANGE = 0.1
"""Share by which an assumed capacity must have moved to be told to the other workers."""


Source = Literal["approximate", "exact"]
"""What a prediction rests on: our own placements, or the engine's KV events."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What was assumed of the chosen engine when a request was placed."""

    endpoint: str
    """Endpoint key."""
    life: int
    source: Source
    predicted: int
    """Prompt tokens expected in the cache, belief not applied."""
    prompt_bytes: int
    """Of JSON."""
    ahead: int
    """Prompt tokens the engine had to compute before this request's."""
    epoch: int
    """`Calibration.epoch` of the life then."""
    chain: list[int]
    """Prefix chain of the prompt."""
    depth: int
    """Blocks of the chain that the life had already."""
    received: bool = False
    """The engine gets the prompt's KV cache from another one, and its answer tells of that one's cache."""

    def tested_by(self, outcome: Outcome) -> bool:
        """Whether what an answer tells of caches is about the engine of which this was claimed."""
        return not outcome.moved and not self.received


class Forget(NamedTuple):
    """The life's cache is not what it was: what was learnt of it is to be cleared."""

    life: int


class Resize(NamedTuple):
    """The life's cache holds more or less than what is assumed."""

    life: int
    factor: float
    """Of the capacity that is assumed now, by whomever it was told."""


class Unlearn(NamedTuple):
    """The request failed, so the engine has not cached more of its prompt than before."""

    life: int
    depth: int
    """Blocks of the claim's chain that the life had before."""


Correction = Forget | Resize | Unlearn


@dataclass(slots=True)
class _Belief:
    trust: float = 1.0
    failures: int = 0
    epoch: int = 0
    factor: float = 1.0
    """Of the capacity, since it was last told."""


@dataclass(slots=True)
class Calibration:
    """What the answers of this worker's requests have taught."""

    _lives: dict[tuple[int, Source], _Belief] = field(default_factory=dict)
    _doubted: set[int] = field(default_factory=set)
    """Lives of which some prediction did not come true lately."""
    _pace: dict[str, float] = field(default_factory=dict)
    _bytes_per_token: dict[str, float] = field(default_factory=dict)

    def trust(self, life: int, source: Source) -> float:
        """How much of such predictions about this life came true lately, 0 to 1; 1 before the first."""
        belief = self._lives.get((life, source))
        return 1.0 if belief is None else belief.trust

    def doubts(self, lives: Sequence[int], source: Source) -> list[tuple[int, float]]:
        """Positions of the lives that are not fully trusted, and how far they are."""
        doubted = self._doubted
        if doubted.isdisjoint(lives):
            return []
        return [(at, self.trust(life, source)) for at, life in enumerate(lives) if life in doubted]

    def epoch(self, life: int) -> int:
        """Grows with each prediction that failed wholly: those made before that was known prove nothing."""
        belief = self._lives.get((life, "approximate"))
        return 0 if belief is None else belief.epoch

    def bytes_per_token(self, server: str) -> float:
        """Bytes of a prompt's JSON per token, of a ModelServer's requests."""
        return self._bytes_per_token.get(server, BYTES_PER_TOKEN)

    def prefill_s(self, endpoint: str, tokens: int) -> float:
        """Seconds that an engine takes to compute so many prompt tokens."""
        return tokens / self._pace.get(endpoint, PREFILL_TOKENS_PER_S)

    def retire(self, endpoint: str, life: int) -> None:
        """Forget a life that is over."""
        self._pace.pop(endpoint, None)
        self._lives.pop((life, "approximate"), None)
        self._lives.pop((life, "exact"), None)
        self._doubted.discard(life)

    def learn(self, claim: Claim, outcome: Outcome, tpot_s: float | None) -> list[Correction]:
        """Take in how a request ended; what follows for the shared state.

        `tpot_s` is the engine's mean time per output token, if known.
        """
        entry = outcome.entry
        if outcome.moved or entry.broken or entry.status >= 500:
            return [Unlearn(claim.life, claim.depth)]
        if outcome.end is not End.COMPLETE or not entry.prompt_tokens:
            return []
        self._measure_text(claim, outcome.reservation.server, entry.prompt_tokens)
        if claim.received or entry.cached_tokens is None:
            return []
        decoded = max(0, entry.completion_tokens - 1)
        if entry.duration_s and (tpot_s is not None or not decoded):
            decoding = decoded * (tpot_s or 0.0)
            self._measure_pace(claim, entry.prompt_tokens - entry.cached_tokens, entry.duration_s, decoding)
        return self._judge(claim, entry.cached_tokens, entry.prompt_tokens)

    def _judge(self, claim: Claim, cached: int, tokens: int) -> list[Correction]:
        predicted = claim.predicted
        if claim.source == "approximate":
            # With the length that is known by now: images and escapes make an estimate from bytes useless.
            predicted = bytes_of(claim.depth) * tokens // claim.prompt_bytes
        belief = self._lives.setdefault((claim.life, claim.source), _Belief())
        stale = claim.source == "approximate" and claim.epoch != belief.epoch
        if predicted < _LEAST_PREDICTED or stale:
            return []
        came_true = cached / predicted
        if came_true > _AS_GOOD_AS_TRUE:
            came_true = 1.0
        belief.trust += _WEIGHT * (came_true - belief.trust)
        self._note_doubt(claim.life)
        return self._corrected(claim.life, belief, came_true) if claim.source == "approximate" else []

    def _corrected(self, life: int, belief: _Belief, came_true: float) -> list[Correction]:
        belief.factor *= _SHRINK if came_true < 0.5 else _GROW
        if came_true >= 0.1:
            belief.failures = 0
        else:
            belief.failures += 1
            belief.epoch += 1
        if belief.failures >= _EMPTY_AFTER:
            # What is learnt from now on is true of the emptied cache.
            belief.failures, belief.trust, belief.factor = 0, 1.0, 1.0
            self._note_doubt(life)
            return [Forget(life)]
        if abs(belief.factor - 1.0) < _TELL_CHANGE:
            return []
        factor, belief.factor = belief.factor, 1.0
        return [Resize(life, factor)]

    def _note_doubt(self, life: int) -> None:
        if min(self.trust(life, "approximate"), self.trust(life, "exact")) < _TRUSTED:
            self._doubted.add(life)
        else:
            self._doubted.discard(life)

    def _measure_text(self, claim: Claim, server: str, tokens: int) -> None:
        sample = claim.prompt_bytes / tokens
        # Images and documents by reference say nothing about text.
        if 1 <= sample <= 16:
            before = self.bytes_per_token(server)
            self._bytes_per_token[server] = before + 0.05 * (sample - before)

    def _measure_pace(self, claim: Claim, computed: int, duration_s: float, decoding_s: float) -> None:
        # A stream's first byte is its headers, which come before the prompt is computed: only the whole time
        # tells. Of a short prompt it tells of everything else.
        if computed < 256 or decoding_s > _DECODED_AT_MOST * duration_s:
            return
        sample = min(1e6, max(100.0, (claim.ahead + computed) / (duration_s - decoding_s)))
        before = self._pace.get(claim.endpoint, PREFILL_TOKENS_PER_S)
        self._pace[claim.endpoint] = before + _WEIGHT * (sample - before)
