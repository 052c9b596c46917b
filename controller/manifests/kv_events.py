"""Where engines publish their KV events: an address that stands for every pod of a ModelServer."""

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from controller.manifests import annotations
from controller.manifests.problem import Fault
from controller.manifests.shape import quoted
from extproc.state import records

_ADDRESS = re.compile(r"tcp://\*:([1-9][0-9]{0,4})", re.ASCII)


def faults(given: Mapping[str, str], ranks: int) -> Iterator[Fault]:
    """What is wrong with the two annotations on a ModelServer whose pods have so many ranks."""
    events, replay = given.get(annotations.KV_EVENTS), given.get(annotations.KV_EVENTS_REPLAY)
    if events is not None and events != "off":
        yield from _address_faults(annotations.KV_EVENTS, events, ranks, ' or "off"')
    if replay is None:
        return
    yield from _address_faults(annotations.KV_EVENTS_REPLAY, replay, ranks)
    if events is None or events == "off":
        yield Fault(
            annotations.at(annotations.KV_EVENTS_REPLAY),
            f"needs {annotations.KV_EVENTS} to say where the events are",
        )


def record(given: Mapping[str, str]) -> records.KvEvents | Literal["off"] | None:
    """The annotations as they are published; call it where there are no faults."""
    events = given.get(annotations.KV_EVENTS)
    if events is None:
        return None
    return "off" if events == "off" else records.KvEvents(events, given.get(annotations.KV_EVENTS_REPLAY))


def _address_faults(name: str, address: str, ranks: int, otherwise: str = "") -> Iterator[Fault]:
    found = _ADDRESS.fullmatch(address)
    if found is None:
        yield Fault(annotations.at(name), f'{quoted(address)} is not "tcp://*:PORT"{otherwise}')
    elif int(found[1]) + ranks - 1 > 65535:
        yield Fault(annotations.at(name), f"{quoted(address)} leaves no port for each of {ranks} ranks")
