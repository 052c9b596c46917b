"""What differs between two sets of records: for the store, for Envoy and for people. Pure."""

from collections.abc import Mapping, Sequence

from extproc.state.records import Change, Delete, ModelServer, Pod, Put, Record

Records = Mapping[str, Record]
"""Records by key."""

_KIND = {"route": "ModelRoute", "server": "ModelServer", "pod": "Pod", "scheduler": "Scheduler"}

_MOST_NAMED = 20
"""How many changes a line of the log names."""


def diff(old: Records, new: Records) -> tuple[Change, ...]:
    """The changes that turn `old` into `new`, in a fixed order."""
    put = (Put(new[key]) for key in sorted(new) if old.get(key) != new[key])
    gone = (Delete(key) for key in sorted(old.keys() - new.keys()))
    return (*put, *gone)


def describe(old: Records, changes: Sequence[Change]) -> str:
    """One line for people: ``+ModelRoute default/chat, ~Pod default/a, -Pod default/b``."""
    named = [_described(old, change) for change in changes[:_MOST_NAMED]]
    more = len(changes) - len(named)
    return ", ".join(named + [f"{more} more"] * (more > 0)) or "no change"


def leftovers(old: Records, new: Records) -> dict[str, Record]:
    """What of `old` a worker that still holds `old` may choose, and `new` no longer has.

    These are ModelServers, and endpoints: each as a pod of one server, on the port it had there. Offered to
    Envoy together with `new` they leave every such choice served.
    """
    kept: dict[str, Record] = {
        key: record for key, record in old.items() if isinstance(record, ModelServer) and key not in new
    }
    if old != new:
        before, after = _endpoints(old), _endpoints(new)
        kept |= {f"{pod.key}@{'/'.join(place)}": pod for place, pod in before.items() if place not in after}
    return kept


def _endpoints(records: Records) -> dict[tuple[str, str], Pod]:
    """(server key, address) to the pod that answers there, as the only pod record this endpoint needs."""
    found: dict[tuple[str, str], Pod] = {}
    for pod in records.values():
        if not isinstance(pod, Pod):
            continue
        for server, address in pod.places(records):
            if pod.answers(server):
                alone = Pod(pod.namespace, pod.name, pod.ip, (server.name,), pod.port or server.port)
                found[server.key, address] = alone
    return found


def _described(old: Records, change: Change) -> str:
    key = change.key if isinstance(change, Delete) else change.record.key
    kind, _, name = key.partition("/")
    sign = "-" if isinstance(change, Delete) else "~" if key in old else "+"
    return f"{sign}{_KIND[kind]} {name}"
