"""SGLang's prefill and decode servers: both get the same body and meet in a room of the bootstrap server.

Neither serves a request without a room. The prefill server answers when its blocks have left.
"""

import asyncio
from dataclasses import dataclass, field, replace

from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.batch import Prefilled
from benchmarks.engine.cache import Lease
from benchmarks.engine.runtime import Work
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.transfer.client import at
from benchmarks.engine.transfer.dock import Dock
from benchmarks.engine.transfer.origins import Travel
from benchmarks.engine.transfer.part import Asked, Part, TransferError, check_one_prompt
from benchmarks.engine.transfer.shelf import Kept


class SGLang:
    """Of the role ``both`` it is a server that knows nothing of rooms."""

    def __init__(self, settings: EngineSettings, dock: Dock, travel: Travel) -> None:
        self._settings = settings
        self._dock = dock
        self._travel = travel

    def part(self, asked: Asked) -> Part:
        if self._settings.role == "both":
            return Part(asked.works)
        check_one_prompt(asked)
        room = asked.fields.bootstrap_room
        if not isinstance(room, int):
            message = f"Disaggregated request received without bootstrap room id, got {room!r}."
            raise ApiError(400, message, "bootstrap_room")
        if self._settings.role == "prefill":
            return self._prefill(asked, str(room))
        return self._decode(asked, str(room))

    def _prefill(self, asked: Asked, room: str) -> Part:
        delivery = _Delivery(self._dock, room, self._settings.transfer_timeout_s)
        first, *others = (_first_token(work) for work in asked.works)
        works = [replace(first, keep=delivery.keep), *others]
        return Part(works, True, delivered=delivery.wait)

    def _decode(self, asked: Asked, room: str) -> Part:
        fields = asked.fields
        if not isinstance(fields.bootstrap_host, str):
            message = f"Disaggregated request received without bootstrap host, got {fields.bootstrap_host!r}."
            raise ApiError(400, message, "bootstrap_host")
        origin = self._travel.from_prefill(
            asked.works[0],
            at(fields.bootstrap_host, fields.bootstrap_port),
            room,
            timeout_s=self._settings.transfer_timeout_s,
        )
        return Part([replace(work, origin=origin) for work in asked.works])


@dataclass(slots=True)
class _Delivery:
    """The blocks of one prompt, which must have left before the prefill server answers."""

    dock: Dock
    room: str
    timeout_s: float
    kept: Kept | None = field(default=None, init=False)

    def keep(self, lease: Lease, prefilled: Prefilled) -> None:
        self.kept = self.dock.put(self.room, lease, prefilled, self.timeout_s)

    async def wait(self) -> None:
        """TransferError if nobody has come in time."""
        assert self.kept is not None, "the answer is complete, so its blocks were kept"
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.kept.gone.wait()
        except TimeoutError:
            raise TransferError(f"nobody came to room {self.room} in {self.timeout_s} s") from None
        finally:
            self.dock.discard(self.kept)


def _first_token(work: Work) -> Work:
    return replace(work, output=work.output[:1], reason="length")
