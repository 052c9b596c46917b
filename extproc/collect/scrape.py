"""One look at one pod: its metrics, its LoRA adapters, whether it sleeps."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from extproc.collect import metrics
from extproc.collect.connection import Answer, Connection
from extproc.collect.metrics import Exposition, Unreadable

ADAPTERS_STAND_S = 5.0
"""How often a pod is asked for its adapters, as long as none shows up that it has not told of."""
SLEEP_FIELDS = {"/is_sleeping": "is_sleeping", "/is_paused": "is_paused"}
"""Paths that vLLM has in its development mode only, and what their answers carry."""
_ABSENT = (403, 404, 405)


class _Model(msgspec.Struct):
    id: str
    parent: str | None = None
    """The base model; set for adapters."""


class _Models(msgspec.Struct):
    data: list[_Model]


_models = msgspec.json.Decoder(_Models)
_flags = msgspec.json.Decoder(dict[str, bool])


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look showed."""

    exposition: Exposition
    adapters: tuple[str, ...] | None
    """LoRA adapters that the pod can serve; None if it does not tell."""
    paused: bool
    """The whole pod sleeps or is paused, whatever its metrics say: it takes requests and does not answer."""


class Scraper:
    """Looks at one pod again and again; asks what changes seldom only now and then."""

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._connection = connection
        self._clock = clock
        self._started: float | None = None
        self._adapters: tuple[str, ...] | None = None
        self._active: frozenset[str] = frozenset()
        self._asked_adapters: float | None = None
        self._sleep_paths: tuple[str, ...] = tuple(SLEEP_FIELDS)

    async def look(self) -> Sight:
        """Raises `Unreachable` or `Unreadable`, whose messages go on after "it can not be observed: "."""
        exposition = metrics.read(await self._exposition())
        if exposition.started != self._started:
            self._started = exposition.started
            self._asked_adapters = None
            self._sleep_paths = tuple(SLEEP_FIELDS)
        await self._ask_adapters(exposition.active_adapters)
        return Sight(exposition, self._adapters, await self._paused())

    async def _exposition(self) -> str:
        answer = await self._connection.get("/metrics")
        if answer.status != 200:
            raise Unreadable(f"/metrics answers {answer.status}")
        return answer.body.decode(errors="replace")

    async def _ask_adapters(self, active: frozenset[str]) -> None:
        now, asked = self._clock(), self._asked_adapters
        appeared = active - self._active
        self._active = active
        if asked is not None and now - asked < ADAPTERS_STAND_S and not appeared:
            return
        self._asked_adapters = now
        answer = await self._connection.get("/v1/models")
        try:
            listed = _models.decode(answer.body) if answer.status == 200 else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            listed = None
        if listed is None:
            self._adapters = None
        else:
            self._adapters = tuple(sorted(one.id for one in listed.data if one.parent is not None))

    async def _paused(self) -> bool:
        """Asks the paths that exist; those that do not are not asked again in this life of the engine."""
        answers = {path: await self._connection.get(path) for path in self._sleep_paths}
        self._sleep_paths = tuple(path for path, answer in answers.items() if answer.status not in _ABSENT)
        return any(_says_so(answer, SLEEP_FIELDS[path]) for path, answer in answers.items())


def _says_so(answer: Answer, field: str) -> bool:
    try:
        return answer.status == 200 and _flags.decode(answer.body).get(field, False)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
