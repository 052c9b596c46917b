"""``/_engine``: for tests, no part of vLLM's API. A slow start does not concern it."""

import asyncio
import base64

from aiohttp import web

from benchmarks.engine.api.context import Context
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.api.generate import json_answer
from benchmarks.engine.faults import Faults
from benchmarks.engine.journal import Journal, Outcome, Received


def add_routes(app: web.Application, context: Context) -> None:
    """``GET /_engine/requests`` and ``POST /_engine/faults``."""

    async def requests(_: web.Request) -> web.Response:
        return json_answer(report(context.journal))

    async def faults(request: web.Request) -> web.StreamResponse:
        try:
            given = Faults.parse(await request.read())
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        refuse_for = context.faults.replace(given, context.clock())
        answer = json_answer(given)
        if refuse_for is not None:
            answer.force_close()
            await answer.prepare(request)
            await answer.write_eof()
            await asyncio.sleep(0)
            context.refuse(refuse_for)
        return answer

    app.router.add_get("/_engine/requests", requests)
    app.router.add_post("/_engine/faults", faults)


def report(journal: Journal) -> dict[str, object]:
    """Counts since the start and the requests that are kept, oldest first."""
    counts = {outcome.value: journal.count(outcome) for outcome in Outcome}
    return {"received": journal.received, **counts, "requests": [_entry(entry) for entry in journal]}


def _entry(entry: Received) -> dict[str, object]:
    return {
        "number": entry.number,
        "method": entry.method,
        "path": entry.path,
        "headers": entry.headers,
        "body_base64": base64.b64encode(entry.body).decode(),
        "outcome": entry.outcome.value,
        "status": entry.status,
        "rank": entry.rank,
    }
