"""Pure: what a supervisor does next.

`step(fleet, event, now)` gives the new fleet and the actions; `Fleet.deadline` says when time alone moves
something, and a `Tick` is due then. A child goes through these phases::

    WAITING ─ all it needs were ready once → RUNNING ─ exit → RESTING ─ delay over → RUNNING …
                                                └ stop asked, nobody needs it → STOPPING ─ exit → GONE
"""

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Literal

FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 8.0
STEADY_S = 10.0
"""A life this long starts the back-off anew."""
FIRST_REMINDER_S = 5.0
LONGEST_REMINDER_S = 30.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One sign of readiness: `address` accepts a connection and, with `path`, answers GET with status 200.

    `address` is ``unix:PATH`` or ``host:port``.
    """

    address: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running."""

    name: str
    argv: tuple[str, ...]
    ready: tuple[Probe, ...] = ()
    """It is ready once all of these hold; with none, as soon as it runs."""
    needs: tuple[str, ...] = ()
    """Names of children before it in the list: it first starts when each of them has been ready once,
    and they are not stopped while it runs."""
    hint: str = ""
    """What to look at when it is not getting ready: ends the line that says it is waited for."""
    env: tuple[tuple[str, str], ...] = ()
    """Variables beside the inherited ones: the place for secrets, since everybody may read `argv`."""
    grace_s: float = 8.0
    """Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The user wants an end: in order the first time, at once the second time."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The child's probes hold."""

    name: str
    life: int


@dataclass(frozen=True, slots=True)
class NotReady:
    """A probe does not hold, and `why`."""

    name: str
    life: int
    why: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The process is gone; a negative `status` is the signal that killed it."""

    name: str
    life: int
    status: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The operating system did not start it."""

    name: str
    life: int
    error: str


Event = Tick | StopAsked | Ready | NotReady | Exited | SpawnFailed


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the child's `life`-th process and watch it."""

    name: str
    life: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send SIGTERM."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL to the child and all that it started."""

    name: str


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the user."""

    text: str


@dataclass(frozen=True, slots=True)
class AllReady:
    """Every child is ready: said once."""


Action = Spawn | Terminate | Kill | Report | AllReady


class Phase(Enum):
    """Where a child is; see the picture above."""

    WAITING = auto()
    RUNNING = auto()
    RESTING = auto()
    STOPPING = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of one child now."""

    phase: Phase = Phase.WAITING
    number: int = 0
    """Counts its processes; an event of an earlier one is void."""
    since: float = 0.0
    """When this process started."""
    deadline: float | None = None
    """When time alone moves it: the next reminder, the end of a rest, the kill."""
    delay: float = 0.0
    """Seconds it rested before this process; 0 before the first exit."""
    ready: bool = False
    was_ready: bool = False
    why: str = "starting"

    @property
    def alive(self) -> bool:
        return self.phase in (Phase.RUNNING, Phase.STOPPING)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All children and what is known of them."""

    children: Mapping[str, Child]
    lives: Mapping[str, Life]
    order: Literal["run", "stop", "kill"] = "run"
    announced: bool = False
    """Whether `AllReady` was said."""
    dependants: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Name to everyone that needs it, directly or not."""

    @classmethod
    def of(cls, children: Iterable[Child]) -> "Fleet":
        """A fleet at rest; raises ValueError for a repeated name or a need that is no earlier child."""
        known: dict[str, Child] = {}
        dependants: dict[str, set[str]] = {}
        for child in children:
            if child.name in known:
                raise ValueError(f"two children are called {child.name}")
            for need in child.needs:
                if need not in known:
                    raise ValueError(f"{child.name} needs {need}, which is no child before it")
            known[child.name] = child
            dependants[child.name] = set()
            for earlier, users in dependants.items():
                if earlier in child.needs or users.intersection(child.needs):
                    users.add(child.name)
        return cls(
            children=MappingProxyType(known),
            lives=MappingProxyType({name: Life() for name in known}),
            dependants=MappingProxyType({name: frozenset(users) for name, users in dependants.items()}),
        )

    @property
    def deadline(self) -> float | None:
        """When the next `Tick` is due; None when only an event can move anything."""
        return min((life.deadline for life in self.lives.values() if life.deadline is not None), default=None)

    @property
    def done(self) -> bool:
        return all(life.phase is Phase.GONE for life in self.lives.values())

    def with_life(self, name: str, life: Life) -> "Fleet":
        return replace(self, lives=MappingProxyType({**self.lives, name: life}))


Step = tuple[Fleet, tuple[Action, ...]]


def step(fleet: Fleet, event: Event, now: float) -> Step:
    """The fleet after `event` at `now` (seconds of any monotonic clock), and what to do."""
    fleet, actions = _taken(fleet, event, now)
    for follow in (_due, _started, _stopped, _announced):
        fleet, more = follow(fleet, now)
        actions += more
    return fleet, actions


def _taken(fleet: Fleet, event: Event, now: float) -> Step:
    match event:
        case Tick():
            return fleet, ()
        case StopAsked():
            return _asked_to_stop(fleet)
        case _:
            life = fleet.lives[event.name]
            if not life.alive or life.number != event.life:
                return fleet, ()
            life, actions = _lived(fleet, fleet.children[event.name], life, event, now)
            return fleet.with_life(event.name, life), actions


def _asked_to_stop(fleet: Fleet) -> Step:
    if fleet.order == "run":
        return replace(fleet, order="stop"), (Report("stopping"),)
    alive = tuple(name for name, life in fleet.lives.items() if life.alive)
    return replace(fleet, order="kill"), (Report("killing what still runs"), *map(Kill, alive))


def _lived(
    fleet: Fleet, child: Child, life: Life, event: Ready | NotReady | Exited | SpawnFailed, now: float
) -> tuple[Life, tuple[Action, ...]]:
    match event:
        case NotReady():
            return replace(life, why=event.why), ()
        case Ready():
            again = (Report(f"{child.name} is ready again"),) if life.was_ready else ()
            deadline = life.deadline if life.phase is Phase.STOPPING else None
            return replace(life, ready=True, was_ready=True, deadline=deadline), again
        case Exited() if fleet.order != "run":
            return replace(life, phase=Phase.GONE, ready=False, deadline=None), ()
        case Exited():
            return _rest(life, now, f"{child.name} {ending(event.status)}")
        case SpawnFailed():
            return _rest(life, now, f"{child.name} cannot be started ({event.error})")


def _rest(life: Life, now: float, what: str) -> tuple[Life, tuple[Action, ...]]:
    steady = now - life.since >= STEADY_S
    delay = FIRST_DELAY_S if steady or not life.delay else min(2 * life.delay, LONGEST_DELAY_S)
    resting = replace(
        life, phase=Phase.RESTING, ready=False, delay=delay, deadline=now + delay, why="starting"
    )
    return resting, (Report(f"{what}, restarting in {delay:g} s"),)


def ending(status: int) -> str:
    """How a process ended, in words: ``exited with status 3``, ``was killed by SIGKILL``."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _due(fleet: Fleet, now: float) -> Step:
    """Reminders and kills whose time has come."""
    actions: tuple[Action, ...] = ()
    for name, life in fleet.lives.items():
        if life.deadline is None or life.deadline > now:
            continue
        if life.phase is Phase.RUNNING:
            waited = now - life.since
            hint = f"; {fleet.children[name].hint}" if fleet.children[name].hint else ""
            actions += (Report(f"waiting for {name} ({waited:.0f} s): {life.why}{hint}"),)
            life = replace(life, deadline=now + min(max(waited, FIRST_REMINDER_S), LONGEST_REMINDER_S))
        elif life.phase is Phase.STOPPING:
            grace = fleet.children[name].grace_s
            actions += (Report(f"{name} did not stop within {grace:g} s, killing it"), Kill(name))
            life = replace(life, deadline=None)
        else:
            continue
        fleet = fleet.with_life(name, life)
    return fleet, actions


def _started(fleet: Fleet, now: float) -> Step:
    """New lives for those that may start."""
    actions: tuple[Action, ...] = ()
    for name, life in fleet.lives.items():
        if fleet.order == "run" and _may_start(fleet, fleet.children[name], life, now):
            number = life.number + 1
            fresh = replace(
                life, phase=Phase.RUNNING, number=number, since=now, deadline=now + FIRST_REMINDER_S
            )
            fleet = fleet.with_life(name, fresh)
            actions += (Spawn(name, number),)
    return fleet, actions


def _may_start(fleet: Fleet, child: Child, life: Life, now: float) -> bool:
    if life.phase is Phase.WAITING:
        return all(fleet.lives[need].was_ready for need in child.needs)
    return life.phase is Phase.RESTING and life.deadline is not None and life.deadline <= now


def _stopped(fleet: Fleet, now: float) -> Step:
    """When stopping: an end to those that nothing alive needs."""
    if fleet.order == "run":
        return fleet, ()
    actions: tuple[Action, ...] = ()
    for name in reversed(tuple(fleet.lives)):
        life = fleet.lives[name]
        if life.phase in (Phase.WAITING, Phase.RESTING):
            fleet = fleet.with_life(name, replace(life, phase=Phase.GONE, deadline=None))
        elif life.phase is Phase.RUNNING and not any(
            fleet.lives[user].alive for user in fleet.dependants[name]
        ):
            kill_at = now + fleet.children[name].grace_s
            fleet = fleet.with_life(name, replace(life, phase=Phase.STOPPING, deadline=kill_at))
            actions += (Terminate(name),)
    return fleet, actions


def _announced(fleet: Fleet, now: float) -> Step:
    if fleet.announced or fleet.order != "run" or not all(life.ready for life in fleet.lives.values()):
        return fleet, ()
    return replace(fleet, announced=True), (AllReady(),)
