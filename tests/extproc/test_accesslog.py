from dataclasses import replace
from functools import partial

import pytest

from extproc.accesslog import End, Entry, settle
from extproc.reservations import Reservations
from extproc.state.live import Load

ENTRY = Entry(
    instance="me",
    reservation=0,
    request_id="",
    status=200,
    client_gone=False,
    broken=False,
    served="10.0.0.1:8000",
    first_byte_s=0.1,
    duration_s=1.0,
    prompt_tokens=5,
    completion_tokens=7,
    cached_tokens=0,
)


def reserved(reservations: Reservations) -> int:
    return reservations.reserve(
        endpoint="pod/default/a", address="10.0.0.1:8000", server="server/default/s", route="route/default/r"
    ).id


def test_an_entry_releases_its_reservation_exactly_once() -> None:
    reservations = Reservations(lambda: 0.0)
    entry = replace(ENTRY, reservation=reserved(reservations))
    reserved(reservations)

    first, second = settle(entry, reservations, "me"), settle(entry, reservations, "me")

    assert first is not None
    assert second is None
    assert reservations.counts() == {"pod/default/a": Load(1, 0)}


def test_an_entry_of_another_life_changes_nothing() -> None:
    reservations = Reservations(lambda: 0.0)
    entry = replace(ENTRY, reservation=reserved(reservations), instance="earlier")

    assert settle(entry, reservations, "me") is None
    assert reservations.counts() == {"pod/default/a": Load(1, 0)}


def test_a_client_that_left_before_the_decision_arrived_is_known_by_its_request() -> None:
    reservations = Reservations(lambda: 0.0)
    reserve = partial(reservations.reserve, address="x", server="server/default/s", route="route/default/r")
    reserve(endpoint="pod/default/a", request_id="left")
    reserve(endpoint="pod/default/b", request_id="stays")
    gone = replace(ENTRY, instance="", request_id="left", client_gone=True)

    assert settle(replace(gone, request_id="of another worker"), reservations, "me") is None
    outcome = settle(gone, reservations, "me")

    assert outcome is not None
    assert outcome.end is End.CLIENT_GONE
    assert reservations.counts() == {"pod/default/b": Load(1, 0)}
    assert settle(gone, reservations, "me") is None


@pytest.mark.parametrize(
    ("entry", "end"),
    [
        (ENTRY, End.COMPLETE),
        (replace(ENTRY, status=400), End.ENGINE_ERROR),
        (replace(ENTRY, status=503, served=""), End.ENGINE_ERROR),
        (replace(ENTRY, status=0), End.ENGINE_ERROR),
        (replace(ENTRY, status=200, broken=True), End.ENGINE_ERROR),
        (replace(ENTRY, status=200, client_gone=True), End.CLIENT_GONE),
        (replace(ENTRY, status=200, client_gone=True, broken=True), End.CLIENT_GONE),
        (replace(ENTRY, status=0, client_gone=True), End.CLIENT_GONE),
    ],
)
def test_ends_are_told_apart(entry: Entry, end: End) -> None:
    reservations = Reservations(lambda: 0.0)

    outcome = settle(replace(entry, reservation=reserved(reservations)), reservations, "me")

    assert outcome is not None
    assert outcome.end is end


@pytest.mark.parametrize(
    ("served", "moved"), [("10.0.0.1:8000", False), ("10.0.0.2:8000", True), ("", False)]
)
def test_a_request_moved_when_another_endpoint_served(served: str, moved: bool) -> None:
    reservations = Reservations(lambda: 0.0)

    outcome = settle(replace(ENTRY, reservation=reserved(reservations), served=served), reservations, "me")

    assert outcome is not None
    assert outcome.moved is moved
