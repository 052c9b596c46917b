"""Serves an admin application; workers and collectors have one each."""

import asyncio
from typing import Never

from aiohttp import web

from extproc.supervise import Address


async def listen(app: web.Application, address: str) -> Never:
    """Serve at ``host:port`` until cancelled; raises OSError where it cannot listen."""
    where = Address.parse(address)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, where.host, where.port).start()
        while True:
            await asyncio.Event().wait()
    finally:
        await runner.cleanup()
