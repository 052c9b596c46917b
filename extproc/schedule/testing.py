"""Builders for tests of screens and scorers: a pool in a few words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from extproc.schedule.pool import Pool, Prompt
from extproc.state.live import Engine, Load
from extproc.state.snapshot import Endpoint


class Member(NamedTuple):
    """One endpoint of a pool to be built."""

    load: Load
    cached: int
    exact: int | None
    seen: Mapping[str, Any]


def a_member(
    requests: int = 0, pending: int = 0, cached: int = 0, exact: int | None = None, **seen: Any
) -> Member:
    """An endpoint with requests in flight and pending tokens.

    `cached` and `exact` are the prompt's tokens in its cache, approximately and by KV events. `seen` are
    fields of `Engine`; without any, no collector has seen it.
    """
    return Member(Load(requests, pending), cached, exact, seen)


def a_pool(
    *members: Member, prompt: int = 1000, adapter: str | None = None, notes: Sequence[str] = ()
) -> Pool:
    """A pool of these members: ``pod/default/0`` at ``10.0.0.0:8000`` and so on, observed 0.3 s ago."""
    endpoints = tuple(
        Endpoint.of(f"pod/default/{at}", f"10.0.{at // 256}.{at % 256}:8000") for at in range(len(members))
    )
    engines = [
        Engine(endpoint.key, endpoint.address, 0.0, **member.seen) if member.seen else None
        for endpoint, member in zip(endpoints, members, strict=True)
    ]
    return Pool(
        Prompt(prompt, adapter),
        endpoints,
        [member.load for member in members],
        engines,
        _Known({endpoint.key: member for endpoint, member in zip(endpoints, members, strict=True)}),
        observed=[None if engine is None else 99.7 for engine in engines],
        now=100.0,
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _Known:
    members: Mapping[str, Member]

    def approximate(self, endpoints: Sequence[Endpoint]) -> list[int]:
        return [self.members[endpoint.key].cached for endpoint in endpoints]

    def exact(self, endpoints: Sequence[Endpoint]) -> list[int] | None:
        found = [self.members[endpoint.key].exact for endpoint in endpoints]
        return None if None in found else [tokens for tokens in found if tokens is not None]
