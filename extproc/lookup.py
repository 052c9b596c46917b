"""One prompt, and how much of it each engine has in its cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from extproc.cache import chain as chains
from extproc.cache.holdings import Holdings
from extproc.calibration import Calibration
from extproc.request import InferenceRequest
from extproc.state.engines import Engines
from extproc.state.live import Engine
from extproc.state.snapshot import Endpoint

FOLLOWED_S = 5.0
"""An engine of which no collector has spoken for so long is not followed any more."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a look-up reads."""

    lives: Mapping[str, int]
    """Endpoint key to the life that its engine is in."""
    engines: Engines
    holdings: Holdings
    calibration: Calibration


@dataclass(slots=True)
class Lookup:
    """One prompt; each endpoint is looked up when a plugin asks."""

    known: Knowledge
    chain: list[int]
    """Prefix chain of the prompt's JSON."""
    prompt_bytes: int
    """Of JSON."""
    tokens: int
    """Length of the prompt: exact with `ids`, else estimated."""
    kv_root: int = 0
    ids: bytes | None = None
    """Token ids, 4 bytes each, little endian; None where they are not known."""
    _kv_chains: dict[int, list[int]] = field(default_factory=dict)
    """Block size to the chain of the ids."""
    _depths: tuple[list[int], list[int]] = ([], [])
    """The lives that were looked up last, and the depth of each."""

    @property
    def kind(self) -> int:
        """Equal for prompts that begin alike."""
        return self.chain[0] if self.chain else 0

    def approximate(self, endpoints: Sequence[Endpoint]) -> list[int]:
        """Tokens per endpoint, as our own placements tell, scaled by how far that came true lately."""
        if not self.chain:
            return [0] * len(endpoints)
        lives = self._lives(endpoints)
        depths = self.known.holdings.prefix_depths(self.chain, lives)
        self._depths = (lives, depths)
        # Many endpoints have the same depth.
        promised = {depth: self.promised(depth) for depth in set(depths)}
        found = [promised[depth] for depth in depths]
        for at, trust in self.known.calibration.doubts(lives, "approximate"):
            found[at] = int(found[at] * trust)
        return found

    def exact(self, endpoints: Sequence[Endpoint]) -> list[int] | None:
        """Tokens per endpoint, as the engines' KV events tell; None without token ids or such engines.

        Endpoints whose events nobody follows keep what is known approximately.
        """
        sizes = self._block_sizes(endpoints)
        if not sizes:
            return None
        followed = sum(map(len, sizes.values()))
        found = self.approximate(endpoints) if followed < len(endpoints) else [0] * followed
        lives = self._lives(endpoints)
        for size, positions in sizes.items():
            depths = self._kv_depths(size, [lives[at] for at in positions])
            for at, depth in zip(positions, depths, strict=True):
                found[at] = self._held(depth, size)
        for at, trust in self.known.calibration.doubts(lives, "exact"):
            if any(at in positions for positions in sizes.values()):
                found[at] = int(found[at] * trust)
        return found

    def depth(self, life: int) -> int:
        """Blocks of the prefix chain that a life should have, as our own placements tell."""
        lives, depths = self._depths
        if life in lives:
            return depths[lives.index(life)]
        return self.known.holdings.prefix_depths(self.chain, [life])[0] if self.chain else 0

    def promised(self, depth: int) -> int:
        """Tokens that so many blocks of the prefix chain stand for."""
        return chains.bytes_of(depth) * self.tokens // self.prompt_bytes

    def is_exact(self, endpoints: Sequence[Endpoint]) -> bool:
        """Whether the prompt's token ids are known, and the KV events of any of the endpoints followed."""
        return bool(self._block_sizes(endpoints))

    def held(self, endpoint: Endpoint) -> int:
        """Tokens that an endpoint has cached by its KV events, which must be followed; trust left out."""
        (size,) = self._block_sizes([endpoint])
        return self._held(self._kv_depths(size, [self.known.lives[endpoint.key]])[0], size)

    def _lives(self, endpoints: Sequence[Endpoint]) -> list[int]:
        lives = self.known.lives
        return [lives[endpoint.key] for endpoint in endpoints]

    def _held(self, depth: int, size: int) -> int:
        """The engine computes at least the last token, and with it the last block."""
        return min(depth, max(0, self.tokens - 1) // size) * size

    def _kv_depths(self, size: int, lives: Sequence[int]) -> list[int]:
        chain = self._kv_chains.get(size)
        if chain is None:
            assert self.ids is not None
            chain = self._kv_chains[size] = chains.kv_chain(self.kv_root, self.ids, size)
        return self.known.holdings.kv_depths(chain, lives)

    def _block_sizes(self, endpoints: Sequence[Endpoint]) -> dict[int, list[int]]:
        """Block size to the positions of the endpoints that have it and whose KV events are followed."""
        sizes: dict[int, list[int]] = {}
        if self.ids is not None:
            for at, endpoint in enumerate(endpoints):
                size = _exact_block_size(self.known.engines.heard(endpoint.key, FOLLOWED_S))
                if size is not None:
                    sizes.setdefault(size, []).append(at)
        return sizes


def lookup(
    known: Knowledge,
    asked: InferenceRequest | None,
    ids: bytes | None,
    bytes_per_token: float,
    roots: Callable[[InferenceRequest], tuple[int, int]],
) -> Lookup:
    """The look-up of a request's prompt; of no prompt where the body is not parsed.

    `roots` gives where its prefix chain and its chain of token ids begin.
    """
    if asked is None:
        return Lookup(known, [], 1, 0)
    text = asked.prompt_text()
    size = len(text)
    prefix_root, kv_root = roots(asked)
    tokens = int(size / bytes_per_token) if ids is None else len(ids) // 4
    return Lookup(known, chains.prefix_chain(prefix_root, text), size, tokens, kv_root, ids)


def _exact_block_size(engine: Engine | None) -> int | None:
    return engine.block_size if engine is not None and engine.kv_events else None
