"""Builders for tests of screens and scorers: a pool in a few words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from extproc.schedule.pool import Pool, Prompt
from extproc.state.live import Engine, Load
from extproc.state.records import Role
from extproc.state.snapshot import Endpoint

_BY_ROLE: Mapping[Role | None, tuple[int, str]] = {
    None: (0, ""),
    "prefill": (1, "prefill-"),
    "decode": (2, "decode-"),
}
"""Second byte of the addresses, and how the pods' names begin."""


class Member(NamedTuple):
    """One endpoint of a pool to be built."""

    load: Load
    cached: int
    exact: int | None
    group: str | None
    seen: Mapping[str, Any]


def a_member(
    requests: int = 0,
    pending: int = 0,
    cached: int = 0,
    exact: int | None = None,
    group: str | None = None,
    **seen: Any,
) -> Member:
    """An endpoint with requests in flight and pending tokens.

    `cached` and `exact` are the prompt's tokens in its cache, approximately and by KV events. `group` is the
    endpoint's. `seen` are fields of `Engine`; without any, no collector has seen it.
    """
    return Member(Load(requests, pending), cached, exact, group, seen)


def a_pool(
    *members: Member,
    prompt: int = 1000,
    adapter: str | None = None,
    notes: Sequence[str] = (),
    role: Role | None = None,
) -> Pool:
    """A pool of these members: ``pod/default/0`` at ``10.0.0.0:8000`` and so on, observed 0.3 s ago.

    With a role they are ``pod/default/prefill-0`` at ``10.1.0.0:8000``, ``decode-0`` at ``10.2.0.0:8000``.
    """
    net, name = _BY_ROLE[role]
    endpoints = tuple(
        Endpoint.of(f"pod/default/{name}{at}", f"10.{net}.{at // 256}.{at % 256}:8000", group=member.group)
        for at, member in enumerate(members)
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
        role=role,
    )


@dataclass(frozen=True, slots=True)
class _Known:
    members: Mapping[str, Member]

    def approximate(self, endpoints: Sequence[Endpoint]) -> list[int]:
        return [self.members[endpoint.key].cached for endpoint in endpoints]

    def exact(self, endpoints: Sequence[Endpoint]) -> list[int] | None:
        found = [self.members[endpoint.key].exact for endpoint in endpoints]
        return None if None in found else [tokens for tokens in found if tokens is not None]
