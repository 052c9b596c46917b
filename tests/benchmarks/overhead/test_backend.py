import asyncio
import json
import os
import sys

import pytest

from benchmarks.overhead.backend import ANSWER
from benchmarks.overhead.load import request_bytes


def test_the_answer_is_whole_and_carries_usage() -> None:
    head, _, body = ANSWER.partition(b"\r\n\r\n")

    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["usage"]["total_tokens"] == 9


@pytest.mark.parametrize("cut", [1, 50, 400])
async def test_requests_cut_anywhere_are_answered_once(cut: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.overhead.backend", "127.0.0.1", "0", stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = request_bytes("host", b"b" * 600)
        for _ in range(2):
            writer.write(request[:cut])
            await writer.drain()
            writer.write(request[cut:])
            assert await reader.readexactly(len(ANSWER)) == ANSWER
        writer.close()
        await writer.wait_closed()
    finally:
        process.kill()
        await process.wait()
