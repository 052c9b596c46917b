"""Where the KV cache of a prompt comes from."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from benchmarks.engine.cache import BlockHash
from benchmarks.engine.runtime import Clock, Work
from benchmarks.engine.transfer.client import Client, Locate, LostError
from benchmarks.engine.transfer.counters import TransferCounters
from benchmarks.engine.transfer.part import TransferError, fingerprint, root
from benchmarks.engine.transfer.wire import Wanted


@dataclass(slots=True)
class Prefill:
    """One prefill engine. One transfer serves all answers to the prompt."""

    client: Client
    counters: TransferCounters
    clock: Clock
    locate: Locate
    wanted: Wanted
    timeout_s: float | None = None
    """Wait no longer; None for an engine that answers at once."""
    is_deaf: bool = False
    """Does not notice that the prefill engine died while it waits for it."""
    is_patient: bool = False
    """Waits on for ever, in vain, when the time is over."""
    _begun: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)

    async def fetch(self, lacking: int) -> int:
        if not self._begun:
            self._begun = True
            try:
                await self._fetch(msgspec.structs.replace(self.wanted, tokens=lacking))
                self._ended = True
            except TransferError:
                self._ended = True
                self.counters.failed()
                raise
        return lacking

    def leave(self) -> None:
        if not self._ended:
            self._ended = True
            self.client.release(self.locate, self.wanted)

    async def _fetch(self, wanted: Wanted) -> None:
        started = self.clock()
        try:
            async with asyncio.timeout(self.timeout_s):
                address = await self.locate()
                await self.client.meet(address, wanted)
                await self._ask(address, wanted)
        except TimeoutError:
            if self.is_patient:
                await asyncio.Event().wait()
            raise TransferError(f"nothing came for {wanted.key} in {self.timeout_s} s") from None
        self.counters.transferred(self.clock() - started, wanted.tokens)

    async def _ask(self, address: str, wanted: Wanted) -> None:
        try:
            await self.client.fetch(address, wanted)
        except LostError:
            if not self.is_deaf:
                raise
            await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Travel:
    """What every way from another engine needs."""

    client: Client
    counters: TransferCounters
    clock: Clock

    def from_prefill(
        self,
        work: Work,
        locate: Locate,
        key: str,
        *,
        engine_id: str | None = None,
        tensor_parallel_size: int | None = None,
        timeout_s: float | None = None,
        is_deaf: bool = False,
        is_patient: bool = False,
    ) -> Prefill:
        """The prompt of ``work``; with a timeout it may still be on its way."""
        connector = self.client.settings.connector
        prompt = fingerprint(root(work), work.prompt)
        waits = timeout_s is not None
        wanted = Wanted(connector, engine_id, tensor_parallel_size, key, prompt, waits)
        return Prefill(self.client, self.counters, self.clock, locate, wanted, timeout_s, is_deaf, is_patient)


class Nowhere:
    """The engine waits, but has asked nobody: a body without what it would have to ask for."""

    async def fetch(self, lacking: int) -> int:
        await asyncio.Event().wait()
        raise AssertionError("unreachable: the wait has no end")

    def leave(self) -> None:
        """There is nobody to tell."""


@dataclass(frozen=True, slots=True)
class Peers:
    """Engines that share what they have cached; what none of them has is computed here."""

    client: Client
    block_size: int
    tokens: int
    """Of the prompt."""
    hashes: Sequence[BlockHash]
    """Of its full blocks."""

    async def fetch(self, lacking: int) -> int:
        most = 0
        for peer in self.client.settings.kv_peers:
            try:
                most = max(most, await self.client.known(peer, list(self.hashes)))
            except TransferError:
                continue
        # The last token is always computed, so that there is something to start the answer from.
        held = min(most * self.block_size, self.tokens - 1)
        came = max(0, held - (self.tokens - lacking))
        await asyncio.sleep(came * self.client.settings.transfer_s_per_token)
        return came

    def leave(self) -> None:
        """Nobody keeps anything for this prompt."""
