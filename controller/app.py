"""The composition root of the controller: everything is built here once and passed by argument."""

import asyncio
import logging
import secrets
import time
from functools import partial

from controller.follow import follow
from controller.publish import Publisher
from controller.settings import Settings
from controller.source import Directory
from controller.xds.plane import DataPlane
from controller.xds.resources import build
from controller.xds.server import Ads
from extproc.state.store import Store
from extproc.supervise import plain_logging, stop_on_signals


async def run(settings: Settings) -> None:
    """Serve Envoy and follow the manifests until SIGTERM, SIGINT or SIGHUP."""
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    async with Store.connect(settings.redis_url, settings.group) as store:
        await serve(settings, store, stop)


async def serve(settings: Settings, store: Store, stop: asyncio.Event) -> None:
    """Run all parts on an open store until `stop` is set."""
    ads = Ads()
    plane = DataPlane(settings.listen, settings.workers, settings.body_limit_bytes, settings.decision_header)
    publisher = Publisher(
        store, ads, partial(build, plane=plane), settings.group, time.monotonic, lambda: secrets.token_hex(8)
    )
    async with asyncio.TaskGroup() as tasks:
        parts = [
            tasks.create_task(ads.serve(settings.xds_socket)),
            tasks.create_task(publisher.run()),
            tasks.create_task(follow(Directory(settings.manifests), publisher)),
        ]
        await stop.wait()
        for part in parts:
            part.cancel()


def configure_logging() -> None:
    """Plain lines on stderr."""
    plain_logging()
    # Its line per change would say less than ours.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
