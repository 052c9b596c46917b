"""The plugins by name: one line each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from extproc.schedule.plugin import Args, Scorer, Screen
from extproc.schedule.plugins.gpu_usage import GpuUsage
from extproc.schedule.plugins.kvcache_aware import KvcacheAware, KvcacheAwareArgs
from extproc.schedule.plugins.least_latency import LeastLatency, LeastLatencyArgs
from extproc.schedule.plugins.least_request import LeastRequestArgs, LeastRequestScorer, LeastRequestScreen
from extproc.schedule.plugins.lmetric import Lmetric, LmetricArgs
from extproc.schedule.plugins.lora_affinity import LoraAffinity
from extproc.schedule.plugins.prefix_cache import PrefixCache, PrefixCacheArgs
from extproc.schedule.plugins.random import Uniform
from extproc.state.records import Plugin


@dataclass(frozen=True, slots=True)
class Entry:
    """What a name stands for: a scorer, a screen, or both with the same arguments."""

    args: type[Args] = Args
    screen: Callable[[Any], Screen] | None = None
    scorer: Callable[[Any], Scorer] | None = None


CATALOGUE: Mapping[str, Entry] = {
    "gpu-usage": Entry(scorer=GpuUsage),
    "kvcache-aware": Entry(KvcacheAwareArgs, scorer=KvcacheAware),
    "least-latency": Entry(LeastLatencyArgs, scorer=LeastLatency),
    "least-request": Entry(LeastRequestArgs, screen=LeastRequestScreen, scorer=LeastRequestScorer),
    "lmetric": Entry(LmetricArgs, scorer=Lmetric),
    "lora-affinity": Entry(screen=LoraAffinity),
    "prefix-cache": Entry(PrefixCacheArgs, scorer=PrefixCache),
    "random": Entry(scorer=Uniform),
}


class UnknownPlugin(ValueError):
    """A record names a plugin that is not here, or not of that kind."""


def screen(plugin: Plugin) -> Screen:
    """The screen of a record; raises UnknownPlugin, or msgspec.ValidationError for its arguments."""
    entry = CATALOGUE.get(plugin.name)
    if entry is None or entry.screen is None:
        raise UnknownPlugin(f"no screen is called {plugin.name}")
    return entry.screen(msgspec.convert(plugin.args, entry.args))


def scorer(plugin: Plugin) -> Scorer:
    """As `screen`."""
    entry = CATALOGUE.get(plugin.name)
    if entry is None or entry.scorer is None:
        raise UnknownPlugin(f"no scorer is called {plugin.name}")
    return entry.scorer(msgspec.convert(plugin.args, entry.args))
