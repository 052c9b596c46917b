"""The engines of a measurement, and what they have cached already."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.schedule.prompts import BLOCK_TOKENS, MODEL, Prompts
from extproc.cache.chain import kv_chain, kv_root, prefix_chain, prefix_root
from extproc.cache.frames import packed
from extproc.cache.snapshots import KvSnapshot, PrefixSnapshot
from extproc.request import APIS, InferenceRequest, parse
from extproc.state.live import Engine
from extproc.state.live import life as life_of
from extproc.state.records import ModelRoute, ModelServer, Plugin, Pod, Profile, Rule, Target
from extproc.state.snapshot import Snapshot, compile_snapshot

SECRET = b"0123456789abcdef"
_STARTED = 1.0
_BYTES_PER_ENTRY = 1024
"""Of a prompt: what a capacity is made for."""
_TOGETHER = 4
"""Of so many blocks, one is held by two engines."""
_SHARED = 16
"""Half of the engines hold the first such part of each conversation: a system prompt, say."""
_HOLDERS = 4
"""Engines that hold more of it: one all, the others some."""


@dataclass(frozen=True, slots=True)
class Scene:
    """How many engines, and how much they hold."""

    pods: int
    entries: int
    """Distinct blocks in each index that is filled."""
    exact: bool = False
    """Prompts are matched by token ids too."""
    seed: int = 1

    @property
    def server(self) -> ModelServer:
        profile = Profile(scorers=(Plugin("lmetric", {"exact": True}),)) if self.exact else None
        return ModelServer("bench", "engines", "vLLM", 8000, model="served", profile=profile)

    @property
    def snapshot(self) -> Snapshot:
        """The configuration."""
        server = self.server
        route = ModelRoute("bench", "route", (Rule((Target(server.name),)),), model=MODEL)
        pods = [
            Pod("bench", f"pod-{at:03d}", f"10.0.{at // 250}.{at % 250 + 1}", (server.name,))
            for at in range(self.pods)
        ]
        return compile_snapshot("bench", 1, [server, route, *pods])

    @property
    def engines(self) -> Sequence[Engine]:
        """What a collector states of each."""
        capacity = max(500_000, 2 * self.entries // self.pods * _BYTES_PER_ENTRY // 4)
        return [
            Engine(
                endpoint.key,
                endpoint.address,
                age_s=0.1,
                started=_STARTED,
                running=4,
                waiting=0,
                kv_usage=0.5,
                ttft_s=0.2,
                tpot_s=0.01,
                block_size=BLOCK_TOKENS,
                capacity_tokens=capacity,
                kv_events=self.exact,
            )
            for endpoint in self.snapshot.endpoints[self.server.key]
        ]

    @property
    def lives(self) -> Sequence[int]:
        return [life_of(engine.endpoint, engine.address, _STARTED) for engine in self.engines]

    def prefixes(self, asked: Sequence[Prompts]) -> Iterator[tuple[int, PrefixSnapshot]]:
        """What each life has learnt of the conversations and of others: half of it in the old generation."""
        root = prefix_root(self.server.key, None, None, SECRET)
        chains = [prefix_chain(root, _text(prompt.body)) for prompts in asked for prompt in prompts.known]
        rng = Random(self.seed)
        capacity = (self.engines[0].capacity_tokens or 0) * 4
        for life, held in self._held(chains, rng):
            half = len(held) // 16 * 8
            young = int(rng.random() * capacity / 2)
            yield life, PrefixSnapshot("0-0", capacity, held[half:], young, held[:half])

    def kv(self, asked: Sequence[Prompts]) -> Iterator[tuple[int, KvSnapshot]]:
        """What each life holds as its events told."""
        root = kv_root(None, None, SECRET)
        chains = [kv_chain(root, each.ids, BLOCK_TOKENS) for prompts in asked for each in prompts.known]
        for life, held in self._held(chains, Random(self.seed + 1)):
            yield life, KvSnapshot("0-0", held, held, b"\1\0\0\0" * (len(held) // 8), 0)

    def _held(self, chains: Sequence[list[int]], rng: Random) -> Iterator[tuple[int, bytes]]:
        """Blocks that nobody asks for, and beginnings of the chains; hashes, packed."""
        each = self.entries // self.pods
        before = b""
        reached = [_reached(len(chain), self.pods, rng) for chain in chains]
        for at, life in enumerate(self.lives):
            own = rng.randbytes(8 * each)
            known = [
                block for chain, depths in zip(chains, reached, strict=True) for block in chain[: depths[at]]
            ]
            yield life, before[: each // _TOGETHER * 8] + own + packed(known)
            before = own


def _reached(length: int, pods: int, rng: Random) -> list[int]:
    """How many blocks of a chain each engine holds."""
    depths = [length // _SHARED if rng.random() < 0.5 else 0 for _ in range(pods)]
    first, *others = rng.sample(range(pods), min(_HOLDERS, pods))
    depths[first] = length
    for at in others:
        depths[at] = rng.randint(1, length)
    return depths


def _text(body: bytes) -> bytes | memoryview:
    asked = parse(APIS["/v1/chat/completions"], body)
    assert isinstance(asked, InferenceRequest)
    return asked.prompt_text()
