"""What an operator or a trainer does with an engine: sleep, pause, forget; and where it publishes KV events.

In vLLM all but ``/kv_event_sources`` are there only with ``VLLM_SERVER_DEV_MODE=1``. Requests that come to an
engine that sleeps or is paused hang without an error, and ``/health`` stays 200. Requests that already run
are computed to their end, as with vLLM's ``mode=wait``.
"""

from aiohttp import web

from benchmarks.engine.api.context import Context
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.api.generate import json_answer

_LEVELS = {"0": 0, "1": 1, "2": 2}


def add_routes(app: web.Application, context: Context) -> None:
    """Sleep, pause, the prefix cache and the sources of KV events."""
    _add_sleep(app, context)
    _add_pause(app, context)

    async def sources(_: web.Request) -> web.Response:
        return json_answer(context.kv_event_sources)

    async def reset(_: web.Request) -> web.Response:
        return json_answer({"success": context.ranks.clear_caches()})

    app.router.add_get("/kv_event_sources", sources)
    app.router.add_post("/reset_prefix_cache", reset)


def _add_sleep(app: web.Application, context: Context) -> None:
    async def sleep(request: web.Request) -> web.Response:
        level = _LEVELS.get(request.query.get("level", "1"))
        if level is None:
            raise ApiError(400, "level must be 0, 1 or 2", "query.level", "Bad Request")
        context.ranks.sleep(level)
        return json_answer({"status": "sleeping", "level": level})

    async def wake_up(_: web.Request) -> web.Response:
        context.ranks.wake_up()
        return json_answer({"status": "awake", "tags": None})

    async def is_sleeping(_: web.Request) -> web.Response:
        # In vLLM too, an engine that is only paused says so here.
        return json_answer({"is_sleeping": context.ranks.is_paused})

    app.router.add_post("/sleep", sleep)
    app.router.add_post("/wake_up", wake_up)
    app.router.add_get("/is_sleeping", is_sleeping)


def _add_pause(app: web.Application, context: Context) -> None:
    async def pause(_: web.Request) -> web.Response:
        context.ranks.pause()
        return json_answer({"status": "paused"})

    async def resume(_: web.Request) -> web.Response:
        context.ranks.resume()
        return json_answer({"status": "resumed"})

    async def is_paused(_: web.Request) -> web.Response:
        return json_answer({"is_paused": context.ranks.is_paused})

    app.router.add_post("/pause", pause)
    app.router.add_post("/resume", resume)
    app.router.add_get("/is_paused", is_paused)
