import asyncio
import socket
import tempfile
from contextlib import asynccontextmanager

import pytest

from extproc.supervise import probe
from extproc.supervise.plan import Probe
from extproc.supervise.probe import why_not_ready


@asynccontextmanager
async def answering(answer):
    """A server on a free port that sends `answer` to whoever asks; None keeps silent."""
    release = asyncio.Event()

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await release.wait()
        else:
            writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        release.set()
        server.close()
        await server.wait_closed()


async def test_an_address_that_accepts_is_ready():
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{place}/s")
            listening.listen()
            assert await why_not_ready((Probe(f"unix:{place}/s"),)) is None


async def test_an_address_that_nobody_listens_on_is_named():
    said = await why_not_ready((Probe("unix:/tmp/nobody-here.sock"),))

    assert said == "unix:/tmp/nobody-here.sock does not accept connections (No such file or directory)"


async def test_status_200_is_ready():
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready") as address:
        assert await why_not_ready((Probe(address), Probe(address, "/readyz"))) is None


async def test_another_status_is_told_with_its_body_on_one_line():
    async with answering(b"HTTP/1.1 503 Unavailable\r\n\r\nno configuration\n  yet\n") as address:
        said = await why_not_ready((Probe(address, "/readyz"),))

    assert said == "/readyz says 503 no configuration yet"


async def test_the_first_probe_that_does_not_hold_speaks():
    async with answering(b"HTTP/1.1 503 Unavailable\r\n\r\n") as address:
        said = await why_not_ready((Probe(address, "/a"), Probe("unix:/tmp/nobody-here.sock")))

    assert said == "/a says 503"


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"\r\n\r\n"])
async def test_what_is_not_http_is_not_ready(answer):
    async with answering(answer) as address:
        said = await why_not_ready((Probe(address, "/readyz"),))

    assert said == "/readyz gives no HTTP answer"


async def test_an_endless_answer_is_not_read_to_its_end():
    async with answering(b"HTTP/1.1 503 No\r\n\r\n" + b"x" * 10_000_000) as address:
        said = await why_not_ready((Probe(address, "/readyz"),))

    assert said == "/readyz says 503 " + "x" * 200


async def test_silence_is_not_ready(monkeypatch):
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.1)
    async with answering(None) as address:
        said = await why_not_ready((Probe(address, "/readyz"),))

    assert said == f"{address} does not answer"
