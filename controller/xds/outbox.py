"""Responses of one stream that wait to be sent."""

import asyncio

from controller.xds.session import Response


class Outbox:
    """At most one response per type, however slowly Envoy reads: a newer one takes the place of an older.

    Nothing is lost by it: a response has all that Envoy asked for of its type. They come out in the order in
    which those that are left were posted.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Response] = {}
        self._posted = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def post(self, response: Response) -> None:
        """Send `response` after all others, and none of its type before it."""
        self._waiting.pop(response.type_url, None)
        self._waiting[response.type_url] = response
        self._posted.set()

    async def take(self) -> Response:
        """The next to be sent, when there is one."""
        await self._posted.wait()
        response = self._waiting.pop(next(iter(self._waiting)))
        if not self._waiting:
            self._posted.clear()
        return response
