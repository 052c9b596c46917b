"""Publishes what is known of our pods' engines on the live stream."""

import asyncio
import logging
from typing import Never

from extproc.collect.observer import Observer
from extproc.collect.ownership import Ownership
from extproc.state.live import Engine
from extproc.state.store import StoreError, Streams

log = logging.getLogger("kvoy.collector")

_EVERY_S = 0.1
"""How long observations are gathered: an entry costs readers the same whatever its size."""


class Statements:
    """Observers with something to say; its own loop (`run`) lets them."""

    def __init__(self, streams: Streams, ownership: Ownership) -> None:
        self._streams = streams
        self._ownership = ownership
        self._due: dict[str, Observer] = {}
        self._failing = False

    def due(self, observer: Observer) -> None:
        """Its pod was looked at."""
        self._due[observer.site.pod] = observer

    async def run(self) -> Never:
        """Publish until cancelled. What the store does not take is out of date when it does again."""
        while True:
            await asyncio.sleep(_EVERY_S)
            due, self._due = self._due, {}
            owned = self._ownership.owned
            engines = [one for pod in due.keys() & owned for one in due[pod].statements()]
            if engines:
                await self._state(engines)

    async def _state(self, engines: list[Engine]) -> None:
        try:
            await self._streams.state(engines)
        except StoreError as error:
            if not self._failing:
                log.warning("what is observed of the engines can not be published: %s", error)
            self._failing = True
        else:
            if self._failing:
                log.info("what is observed of the engines is published again")
            self._failing = False
