import asyncio
import socket

import aiohttp
import pytest
from aiohttp import web

from extproc.http_server import listen
from extproc.supervise import claim_addresses


def an_app() -> web.Application:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    return app


def free_address() -> str:
    (address,) = claim_addresses("127.0.0.1:0", 1)
    return address


async def answers(address: str) -> bool:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://{address}/") as response:
                return await response.text() == "hello"
        except aiohttp.ClientError:
            return False


async def test_it_serves_until_it_is_cancelled() -> None:
    address = free_address()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(listen(an_app(), address))
        while not await answers(address):
            await asyncio.sleep(0.01)
        serving.cancel()

    assert not await answers(address)


async def test_an_address_that_is_taken_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="address"):
            await listen(an_app(), f"127.0.0.1:{taken.getsockname()[1]}")
