"""End to end: a client, the real Envoy, real workers, real Valkey, simulated engines."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest_asyncio

from tests.envoy.world import (
    World,
    a_model_route,
    a_model_server,
    a_pod_manifest,
    a_world,
    engines,
    to,
    until,
)

SLOW = ("--inter-token-s", "0.005", "--reply-tokens", "100000")
"""An engine that streams for as long as it is asked to."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_world() -> AsyncIterator[World]:
    """One stack for all tests that leave it as they found it.

    Engines: ``big`` (ModelServer big), ``small-1`` and ``small-2`` (ModelServer small).
    """
    async with AsyncExitStack() as resources:
        big, small_1, small_2 = await engines(
            resources,
            ("big", "--model", "vendor/big", "--inter-token-s", "0"),
            ("small-1", "--model", "vendor/small", "--lora", "lora-a", *SLOW),
            ("small-2", "--model", "vendor/small", "--lora", "lora-a", *SLOW),
        )
        world = await resources.enter_async_context(
            a_world(
                servers=[
                    a_model_server("big", model="vendor/big"),
                    a_model_server("small", model="vendor/small"),
                ],
                pods=[
                    a_pod_manifest("big", "big", big.port),
                    a_pod_manifest("small-1", "small", small_1.port),
                    a_pod_manifest("small-2", "small", small_2.port),
                ],
                routes=[
                    a_model_route(
                        "deepseek",
                        "deepseek-r1",
                        to("big", headers={"user-type": {"exact": "premium"}}),
                        to("small"),
                        loras=["lora-a"],
                    )
                ],
            )
        )
        world.engines = {engine.name: engine for engine in (big, small_1, small_2)}
        yield world


@pytest_asyncio.fixture(loop_scope="session")
async def world(shared_world: World) -> AsyncIterator[World]:
    """The shared stack, free of faults, and idle again after the test."""
    yield shared_world
    for engine in shared_world.engines.values():
        await engine.faults()
    await until(shared_world.idle)
