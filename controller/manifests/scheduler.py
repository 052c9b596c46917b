"""Kthena's scheduler configuration: how endpoints are chosen, for all ModelServers or for one.

It comes as a file of its own, as ``data.routerConfiguration`` of a ConfigMap, or in an annotation of a
ModelServer.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from controller.manifests.problem import Fault
from controller.manifests.shape import convert, quoted
from controller.manifests.text import documents
from extproc.schedule.catalogue import CATALOGUE
from extproc.state import records

_MOST = 1_000_000
"""Largest weight."""


class PluginConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a plugin, wherever it is enabled."""

    name: str
    args: dict[str, Any] = {}


class Filters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which screens apply."""

    enabled: list[str] = []
    disabled: list[str] = []


class Weighed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scorer and its weight, from 0 to a million; 0 turns it off."""

    name: str
    weight: float = 1.0


class Scores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which scorers rank the endpoints; without `enabled`, the default ones."""

    enabled: list[Weighed] | None = None
    disabled: list[Weighed] = []


class Plugins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is enabled; `disabled` takes away from it and from the defaults."""

    filters: Filters = msgspec.field(default=Filters(), name="Filter")
    scores: Scores = msgspec.field(default=Scores(), name="Score")


class Scheduling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The section ``scheduler``."""

    plugin_config: list[PluginConfig] = []
    plugins: Plugins = Plugins()

    def faults(self) -> Iterator[Fault]:
        """What the types alone cannot say; paths begin in this section."""
        seen: set[str] = set()
        for at, config in enumerate(self.plugin_config):
            yield from _config_faults(config, f"pluginConfig[{at}]", seen)
        filters, scores = self.plugins.filters, self.plugins.scores
        yield from _listed(filters.enabled, "plugins.Filter.enabled[{}]", "Filter")
        yield from _listed(filters.disabled, "plugins.Filter.disabled[{}]", "Filter")
        yield from _listed(_names(scores.enabled or []), "plugins.Score.enabled[{}].name", "Score")
        yield from _listed(_names(scores.disabled), "plugins.Score.disabled[{}].name", "Score")
        for at, each in enumerate(scores.enabled or []):
            if not 0 <= each.weight <= _MOST:
                message = f"{quoted(each.weight)} is not a number from 0 to {_MOST}"
                yield Fault(f"plugins.Score.enabled[{at}].weight", message)

    def profile(self) -> records.Profile:
        """The profile as it is published; call it on a section without faults."""
        args = {config.name: _given(config.args) for config in self.plugin_config}
        filters = self.plugins.filters
        kept = (name for name in filters.enabled if name not in filters.disabled)
        screens = tuple(records.Plugin(name, args.get(name, {})) for name in kept)
        scorers = (
            records.Plugin(each.name, args.get(each.name, {}), each.weight)
            for each in self._scores()
            if each.weight > 0
        )
        return records.Profile(screens, _without_mixed_random(tuple(scorers)))

    def _scores(self) -> list[Weighed]:
        scores = self.plugins.scores
        enabled = scores.enabled
        if enabled is None:
            enabled = [Weighed(plugin.name, plugin.weight) for plugin in records.Profile().scorers]
        disabled = _names(scores.disabled)
        return [each for each in enabled if each.name not in disabled]


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The section ``auth``: only as far as it asks for nothing."""

    issuer: str = ""
    audiences: list[str] = []
    jwks_uri: str = ""


class SessionSticky(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Kthena keeps sessions. ModelServers that want sessions are refused, so there are none to keep."""

    backend: Literal["memory"] = "memory"


class SchedulerFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The whole file."""

    scheduler: Scheduling = Scheduling()
    auth: Auth = Auth()
    session_sticky: SessionSticky = SessionSticky()

    def faults(self) -> Iterator[Fault]:
        """What the types alone cannot say."""
        for name, value in msgspec.to_builtins(self.auth).items():
            if value:
                yield Fault(f"auth.{name}", "kvoy does not check tokens yet; remove it")
        for fault in self.scheduler.faults():
            yield Fault(f"scheduler.{fault.field}", fault.message)

    def record(self) -> records.Scheduler:
        """The configuration as it is published; call it on a view without faults."""
        return records.Scheduler(self.scheduler.profile())


def is_scheduler(document: Mapping[object, object]) -> bool:
    """Whether a document is Kthena's scheduler configuration: it has sections, and no kind."""
    return not {"apiVersion", "kind"} & document.keys() and bool({"scheduler", "auth"} & document.keys())


def read(document: object) -> tuple[SchedulerFile | None, tuple[Fault, ...]]:
    """The whole file as a view, and everything that is wrong with it."""
    view, faults = convert(document, SchedulerFile, {})
    if view is not None:
        faults = (*faults, *view.faults())
    return view, faults


def read_text(text: str) -> tuple[SchedulerFile | None, tuple[Fault, ...]]:
    """As `read`, from YAML; the section ``scheduler`` may also be given alone, without its name."""
    try:
        found = documents("", text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        return None, (Fault("", str(error)),)
    if len(found) != 1:
        return None, (Fault("", f"holds {len(found)} documents; one is expected"),)
    (document,) = found
    if isinstance(document, dict) and not {"scheduler", "auth"} & document.keys():
        view, faults = read({"scheduler": document})
        return view, tuple(Fault(fault.field.removeprefix("scheduler."), fault.message) for fault in faults)
    return read(document)


def _config_faults(config: PluginConfig, path: str, seen: set[str]) -> Iterator[Fault]:
    entry = CATALOGUE.get(config.name)
    if entry is None:
        yield Fault(f"{path}.name", _unknown(config.name, CATALOGUE))
        return
    if config.name in seen:
        yield Fault(f"{path}.name", f"{quoted(config.name)} is configured twice; join its arguments")
    seen.add(config.name)
    args, faults = convert(config.args, entry.args, {})
    for fault in faults:
        yield Fault(f"{path}.args.{fault.field}", fault.message)
    for name, message in () if args is None else args.faults():
        yield Fault(f"{path}.args.{name}", message)


def _listed(names: Iterable[str], path: str, kind: Literal["Filter", "Score"]) -> Iterator[Fault]:
    """Faults of a list of plugins that should be of a kind."""
    fitting = {
        name for name, entry in CATALOGUE.items() if (entry.screen if kind == "Filter" else entry.scorer)
    }
    seen: set[str] = set()
    for at, name in enumerate(names):
        other = "Score" if kind == "Filter" else "Filter"
        if name not in CATALOGUE:
            yield Fault(path.format(at), _unknown(name, fitting))
        elif name not in fitting:
            yield Fault(path.format(at), f"{quoted(name)} is not for {kind}; list it under plugins.{other}")
        elif name in seen:
            yield Fault(path.format(at), f"{quoted(name)} is listed twice; remove one of them")
        seen.add(name)


def _unknown(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {quoted(near[0])}?" if near else f"there are {', '.join(names)}"
    return f"no plugin is called {quoted(name)}; {hint}"


def _names(scores: Iterable[Weighed]) -> list[str]:
    return [each.name for each in scores]


def _given(args: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in args.items() if value is not None}


def _without_mixed_random(scorers: tuple[records.Plugin, ...]) -> tuple[records.Plugin, ...]:
    """Draws would only blur what the other scorers say, so Kthena leaves `random` out beside them."""
    others = tuple(plugin for plugin in scorers if plugin.name != "random")
    return others or scorers
