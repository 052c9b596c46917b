"""Token usage of answers, as it arrives in the access log."""

import asyncio

import pytest
from aiohttp import web

PLAIN = b'{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}'
CACHED = (
    b'{"usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}}'
)


def answering(body: bytes, content_type: str):
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={"content-type": content_type})

    return handler


def streaming(parts: list[bytes]):
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(0.002)
        return response

    return handler


async def usage_of(mesh, handler) -> tuple[bytes, dict[str, int]]:
    mesh.engines[0].handler = handler
    count = len(mesh.workers[0].entries)
    status, _, body = await mesh.ask()
    assert status == 200
    entry = (await mesh.entries(count + 1))[-1]
    fields = entry.common_properties.metadata.filter_metadata["llm"].fields
    return body, {key: int(value.number_value) for key, value in fields.items()}


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
async def test_of_a_plain_answer(mesh, content_type):
    body, usage = await usage_of(mesh, answering(PLAIN, content_type))
    assert body == PLAIN
    assert usage == {"prompt_tokens": 7, "completion_tokens": 3}
    _, usage = await usage_of(mesh, answering(CACHED, content_type))
    assert usage == {"prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 4}


async def test_of_a_streamed_answer_whatever_its_segments(mesh):
    large = b'data: {"choices": [{"text": "' + b"x" * 50_000 + b'"}], "usage": null}\n\n'
    last = b"data: " + CACHED + b"\n\n"
    split = [last[i : i + 7] for i in range(0, len(last), 7)]
    body, usage = await usage_of(mesh, streaming([large, *split, b"data: [DONE]\n\n"]))
    assert body == large + last + b"data: [DONE]\n\n"
    assert usage == {"prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 4}
    _, usage = await usage_of(mesh, streaming([large[:-2] + b"\r\n\r\n" + last]))
    assert usage["completion_tokens"] == 3


async def test_the_last_statement_counts(mesh):
    first = b'data: {"usage": {"prompt_tokens": 7, "completion_tokens": 1}}\n\n'
    last = b'data: {"usage": {"prompt_tokens": 7, "completion_tokens": 2}}\n\n'
    _, usage = await usage_of(mesh, streaming([first, last]))
    assert usage == {"prompt_tokens": 7, "completion_tokens": 2}
    _, usage = await usage_of(mesh, streaming([first + last]))
    assert usage == {"prompt_tokens": 7, "completion_tokens": 2}


async def test_of_the_other_apis(mesh):
    responses = (
        b'event: response.completed\ndata: {"response": {"usage": {"input_tokens": 7, '
        b'"input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3}}}\n\n'
    )
    _, usage = await usage_of(mesh, streaming([responses]))
    assert usage == {"prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 4}
    start = (
        b'data: {"message": {"usage": {"input_tokens": 7, "cache_read_input_tokens": 4, '
        b'"output_tokens": 1}}}\n\n'
    )
    delta = b'data: {"type": "message_delta", "usage": {"output_tokens": 3}}\n\n'
    _, usage = await usage_of(mesh, streaming([start, delta]))
    assert usage == {"prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 4}


HOSTILE = [
    *(b"", b"1", b"-1.5", b'"usage"', b"null", b"true", b"[1]", b"{", b"\xff\x00", b"[DONE]"),
    *(b'{"usage": null}', b'{"usage": 1}', b'{"usage": [1]}'),
    *(b'{"usage": {"prompt_tokens": null}}', b'{"usage": {"prompt_tokens": "7"}}'),
    *(b'{"usage":' * 3000, b"[" * 10_000, b'{"usage": {' + b"x" * 9000 + b"}}"),
    b'{"text": "say \\"usage\\": {\\"prompt_tokens\\": 9}"}',
]


async def test_an_answer_without_usage_passes_untouched_and_hurts_nothing(mesh):
    for body in HOSTILE:
        assert await usage_of(mesh, answering(body, "application/json")) == (body, {})
        event = b"data: " + body + b"\n\n"
        assert await usage_of(mesh, streaming([event[:9], event[9:]])) == (event, {})
    assert mesh.envoy.process.returncode is None
    assert "script log" not in mesh.envoy.log.read_text()
    assert "usage.lua" not in mesh.envoy.log.read_text()


async def test_other_content_is_not_read(mesh):
    assert await usage_of(mesh, answering(PLAIN, "text/plain")) == (PLAIN, {})


async def test_a_large_answer_passes_untouched(start_mesh):
    async with start_mesh(body_limit=2 * 2**20) as mesh:
        body = b'{"data": "' + b"x" * 9_000_000 + b'", ' + PLAIN[1:]
        assert await usage_of(mesh, answering(body, "application/json")) == (
            body,
            {"prompt_tokens": 7, "completion_tokens": 3},
        )


async def test_chunks_are_not_held_back(mesh):
    go_on = asyncio.Event()

    async def in_two_parts(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"usage"')
        await go_on.wait()
        await response.write(b': {"prompt_tokens": 7}}\n\n')
        return response

    mesh.engines[0].handler = in_two_parts
    async with mesh.post() as answer:
        assert await answer.content.readany() == b'data: {"usage"'
        go_on.set()
        await answer.read()
    (entry,) = await mesh.entries(1)
    fields = entry.common_properties.metadata.filter_metadata["llm"].fields
    assert fields["prompt_tokens"].number_value == 7
