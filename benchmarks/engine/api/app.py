"""The aiohttp application: routes, and what every request passes through."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Middleware

from benchmarks.engine import families
from benchmarks.engine.api import catalogue, control, errors, operations, pooling
from benchmarks.engine.api.ask import Dialect, Envelope
from benchmarks.engine.api.chat import Chat, ChatRequest
from benchmarks.engine.api.completions import Completion, CompletionRequest
from benchmarks.engine.api.context import ENTRY, RANK, REQUEST_ID, Context
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.api.generate import (
    KilledError,
    ResetConnectionError,
    admitted,
    chosen,
    generate,
    interruption,
    json_answer,
)
from benchmarks.engine.api.messages import Messages, MessagesRequest
from benchmarks.engine.api.parse import parse
from benchmarks.engine.api.responses import Responses, ResponsesRequest
from benchmarks.engine.journal import Outcome
from benchmarks.engine.models import Models
from benchmarks.engine.runtime import Runtime, Work
from benchmarks.engine.transfer.part import EngineDeathError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Pooling = TypeVar("_Pooling", pooling.EmbeddingRequest, pooling.RerankRequest)

ENGINE_NAME = "x-engine-name"
ENGINE_RANK = "x-engine-rank"
_ID_HEADER = "x-request-id"

_PROBES = frozenset({"/health", "/ping", "/metrics"})
"""Paths that the journal leaves out."""

_DIALECTS: dict[str, Callable[[bytes], Dialect]] = {
    "/v1/chat/completions": lambda raw: Chat.of(parse(raw, ChatRequest)),
    "/v1/completions": lambda raw: Completion.of(parse(raw, CompletionRequest)),
    "/v1/messages": lambda raw: Messages(parse(raw, MessagesRequest)),
    "/v1/responses": lambda raw: Responses(parse(raw, ResponsesRequest)),
}


def build(context: Context) -> web.Application:
    """The application of one engine."""
    # Size 0 is no limit: how large a body may be is for the gateway to say.
    app = web.Application(middlewares=[_middleware(context)], client_max_size=0)
    app.on_response_prepare.append(_headers(context))
    for path, dialect in _DIALECTS.items():
        app.router.add_post(path, _generation(context, dialect))
    embed = _pooling(context, pooling.EmbeddingRequest, pooling.embedding_works, pooling.embeddings)
    app.router.add_post("/v1/embeddings", embed)
    rerank = _pooling(context, pooling.RerankRequest, pooling.rerank_works, pooling.rerank)
    app.router.add_post("/v1/rerank", rerank)
    _add_catalogue(app, context)
    operations.add_routes(app, context)
    control.add_routes(app, context)
    return app


def _generation(context: Context, dialect_of: Callable[[bytes], Dialect]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        fault = await interruption(context.faults.take())
        return await generate(request, request[REQUEST_ID], dialect_of(await request.read()), context, fault)

    return handle


def _pooling(
    context: Context,
    kind: type[_Pooling],
    works_of: Callable[[_Pooling, Models, int], list[Work]],
    answer: Callable[[Envelope, _Pooling, Sequence[Work]], dict[str, object]],
) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        await interruption(context.faults.take())
        body = parse(await request.read(), kind)
        works = works_of(body, context.models, context.settings.max_model_len)
        await _prefill(chosen(request, context), works)
        return json_answer(answer(context.envelope(request[REQUEST_ID], body.model), body, works))

    return handle


async def _prefill(runtime: Runtime, works: list[Work]) -> None:
    with admitted(runtime, works) as runs:
        for run in runs:
            await runtime.wait(run)


def _add_catalogue(app: web.Application, context: Context) -> None:
    longest = context.settings.max_model_len

    async def healthy(_: web.Request) -> web.Response:
        return web.Response()

    async def version(_: web.Request) -> web.Response:
        return json_answer({"version": catalogue.VERSION})

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=context.ranks.render(), headers={"content-type": families.CONTENT_TYPE})

    async def models(_: web.Request) -> web.Response:
        return json_answer(catalogue.listing(context.models, context.started, longest))

    async def tokenize(request: web.Request) -> web.Response:
        if context.faults.tokens_refused is not None:
            raise errors.told_to_fail(context.faults.tokens_refused)
        body = parse(await request.read(), catalogue.TokenizeRequest)
        return json_answer(catalogue.tokenize(body, context.models, longest))

    async def detokenize(request: web.Request) -> web.Response:
        body = parse(await request.read(), catalogue.DetokenizeRequest)
        return json_answer(catalogue.detokenize(body, context.models))

    for path in ("/health", "/ping"):
        app.router.add_get(path, healthy)
    app.router.add_post("/ping", healthy)
    app.router.add_get("/version", version)
    app.router.add_get("/metrics", exposition)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/tokenize", tokenize)
    app.router.add_post("/detokenize", detokenize)
    if context.settings.max_loras:
        _add_adapters(app, context)


def _add_adapters(app: web.Application, context: Context) -> None:
    async def load(request: web.Request) -> web.Response:
        return _text(catalogue.load(context.models, parse(await request.read(), catalogue.LoadRequest)))

    async def unload(request: web.Request) -> web.Response:
        return _text(catalogue.unload(context.models, parse(await request.read(), catalogue.UnloadRequest)))

    app.router.add_post("/v1/load_lora_adapter", load)
    app.router.add_post("/v1/unload_lora_adapter", unload)


def _text(text: str) -> web.Response:
    return web.Response(text=text)


def _headers(context: Context) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def add(request: web.Request, response: web.StreamResponse) -> None:
        response.headers[ENGINE_NAME] = context.settings.name
        response.headers[_ID_HEADER] = request.get(REQUEST_ID, "")
        if RANK in request:
            response.headers[ENGINE_RANK] = str(request[RANK])
        if ENTRY in request:
            request[ENTRY].status = response.status

    return add


def _middleware(context: Context) -> Middleware:
    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = request.headers.get(_ID_HEADER) or context.new_id()
        if request.path.startswith("/_engine/"):
            return await _answered(request, handler)
        started = context.clock()
        response = await _watched(context, request, handler)
        route = request.match_info.route.resource
        path = route.canonical if route is not None else "none"
        context.ranks.frontend.http(path, request.method, response.status, context.clock() - started)
        return response

    return handle


async def _watched(context: Context, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer, and note in the journal how that ended."""
    if request.path in _PROBES:
        return await _served(context, request, handler)
    raw_headers = tuple(
        (key.decode("latin-1"), value.decode("latin-1")) for key, value in request.raw_headers
    )
    entry = context.journal.open(request.method, request.path_qs, raw_headers, await request.read())
    request[ENTRY] = entry
    try:
        response = await _served(context, request, handler)
    except ResetConnectionError:
        context.journal.close(entry, Outcome.RESET)
        return await _reset(request)
    except KilledError:
        context.journal.close(entry, Outcome.RESET)
        context.die()
        return await _reset(request)
    except EngineDeathError:
        response = await _last_answer(context, request)
    except (asyncio.CancelledError, ConnectionError):
        context.journal.close(entry, Outcome.ABORTED)
        raise
    context.journal.close(entry, Outcome.FINISHED)
    return response


async def _served(context: Context, request: web.Request, handler: Handler) -> web.StreamResponse:
    if context.faults.is_ready(context.clock()):
        return await _answered(request, handler)
    if request.path in _PROBES:
        return web.Response(status=503)
    return json_answer(errors.starting().body(), 503)


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer, with errors in vLLM's bodies."""
    try:
        return await handler(request)
    except ApiError as error:
        return json_answer(error.body(), error.status)
    except web.HTTPException as error:
        answer = json_answer({"detail": error.reason}, error.status)
        if "allow" in error.headers:
            answer.headers["allow"] = error.headers["allow"]
        return answer


async def _last_answer(context: Context, request: web.Request) -> web.StreamResponse:
    """What who killed the engine hears; the others hear nothing."""
    error = errors.engine_dead()
    answer = json_answer(error.body(), error.status)
    answer.force_close()
    await answer.prepare(request)
    await answer.write_eof()
    await asyncio.sleep(0)
    context.die()
    return answer


async def _reset(request: web.Request) -> web.StreamResponse:
    """Close the connection with a TCP RST; this coroutine is cancelled when it is gone."""
    transport = request.transport
    if transport is not None:
        # Lingering for zero seconds turns the close into a reset.
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    await asyncio.Event().wait()
    raise AssertionError("unreachable: the wait has no end")
