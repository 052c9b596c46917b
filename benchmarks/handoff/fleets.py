"""Four simulated GPUs, with one engine each: together, or some for prompts and some for answers.

``python -m benchmarks.handoff.fleets CONTEXT FLEET …`` runs fleets for requests of about so many tokens each,
and prints the pods of each as JSON.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import msgspec
import uvloop

from benchmarks.engine import EngineSettings, running
from benchmarks.handoff.pods import Pod
from extproc.state.records import Role

CONNECTOR: Literal["nixl"] = "nixl"

PREFILL_TOKENS_PER_S = 10_000.0
"""Llama 3.1 8B, BF16, on an A100. NVIDIA states 48 ms for 500 tokens of prompt (NIM 1.10, Llama 3.1 Nemotron
Safety Guard 8B, A100 80 GB); half of the card's 312 TFLOPS, at 16 GFLOP per token, are the same."""
INTER_TOKEN_S = 0.0133
"""Likewise: one stream gets 75 tokens per second (vLLM 0.23, A100 40 GB; "vLLM throughput-latency sweep on
NVIDIA A100", johnmusgrave.com)."""
CHUNK_TOKENS = 2048
"""vLLM's default `max_num_batched_tokens` of a server on an A100."""
KV_BYTES_PER_TOKEN = 131_072
"""32 layers, 8 KV heads of 128 numbers, 16 bits each."""
MEMORY_BYTES_PER_S = 1.555e12
"""Of an A100 with 40 GB."""
NETWORK_BYTES_PER_S = 12.5e9
"""100 Gbit/s."""
BLOCKS = 8_800
"""18 GB of KV cache: what 40 GB hold beside the weights."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """GPUs behind one model, which is called `name`: letters and digits."""

    name: str
    text: str
    roles: Sequence[Role | None]

    @property
    def connector(self) -> Literal["nixl"] | None:
        """None: every engine does both."""
        return None if None in self.roles else CONNECTOR


TOGETHER = Fleet("together", "4 together", (None,) * 4)
P1D3 = Fleet("p1d3", "1 prefill, 3 decode", ("prefill", "decode", "decode", "decode"))
P2D2 = Fleet("p2d2", "2 prefill, 2 decode", ("prefill", "prefill", "decode", "decode"))
P3D1 = Fleet("p3d1", "3 prefill, 1 decode", ("prefill", "prefill", "prefill", "decode"))
FLEETS = {fleet.name: fleet for fleet in (TOGETHER, P1D3, P2D2, P3D1)}


def gpu(name: str, role: Role | None, context: int) -> EngineSettings:
    """One GPU for requests of about so many tokens: each further one of a step has its KV cache read too."""
    return EngineSettings(
        name=name,
        model=name.partition("-")[0],
        role=role or "both",
        connector="none" if role is None else CONNECTOR,
        num_blocks=BLOCKS,
        prefill_tokens_per_s=PREFILL_TOKENS_PER_S,
        prefill_chunk_tokens=CHUNK_TOKENS,
        inter_token_s=INTER_TOKEN_S,
        inter_token_s_per_answer=context * KV_BYTES_PER_TOKEN / MEMORY_BYTES_PER_S,
        transfer_s_per_token=KV_BYTES_PER_TOKEN / NETWORK_BYTES_PER_S,
        keep_requests=0,
    )


@asynccontextmanager
async def running_fleets(wanted: Sequence[Fleet], context: int) -> AsyncIterator[Mapping[str, Sequence[Pod]]]:
    """Name of each fleet to its pods, in a process of their own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.handoff.fleets", str(context)),
        *(fleet.name for fleet in wanted),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield msgspec.json.decode(await process.stdout.readline(), type=dict[str, list[Pod]])
    finally:
        process.kill()
        await process.wait()


async def _serve(context: int, wanted: Sequence[Fleet]) -> None:
    async with AsyncExitStack() as resources:
        told: dict[str, list[Pod]] = {}
        for fleet in wanted:
            told[fleet.name] = []
            for number, role in enumerate(fleet.roles):
                settings = gpu(f"{fleet.name}-{number}", role, context)
                engine = await resources.enter_async_context(running(settings))
                told[fleet.name].append(Pod(settings.name, engine.port, role))
        print(msgspec.json.encode(told).decode(), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), [FLEETS[name] for name in sys.argv[2:]]))
