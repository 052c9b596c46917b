import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.state import live
from extproc.state.live import Engine, InFlight, Load, life

LOADS = st.dictionaries(st.text(max_size=8), st.builds(Load, st.integers(0, 2**40), st.integers(0, 2**40)))
IN_FLIGHT = st.builds(InFlight, st.text(max_size=8), LOADS, st.booleans())
SECONDS = st.floats(0, 1e9)
ENGINE = st.builds(
    Engine,
    endpoint=st.text(max_size=8),
    address=st.text(max_size=8),
    age_s=SECONDS,
    started=st.none() | SECONDS,
    failing=st.none() | st.text(max_size=8),
    asleep=st.booleans(),
    running=st.none() | st.integers(0, 10**6),
    adapters=st.none() | st.lists(st.text(max_size=8)).map(tuple),
    kv_events=st.booleans(),
)


@given(st.lists(IN_FLIGHT | ENGINE))
def test_statements_arrive_as_they_were_made(statements: list[live.Statement]) -> None:
    assert live.decode(live.encode(statements)) == statements


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x91\x80", msgspec.msgpack.encode([{"type": "other"}])])
def test_what_is_no_statement_is_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        live.decode(raw)


def test_what_is_not_known_takes_no_room() -> None:
    raw = live.encode([Engine("pod/default/a", "10.0.0.1:8000", 0.5)])

    assert b"kv_usage" not in raw


def test_each_life_of_an_engine_is_another() -> None:
    lives = {
        life("pod/default/a", "10.0.0.1:8000"),
        life("pod/default/a", "10.0.0.1:8000", 1000.0),
        life("pod/default/a", "10.0.0.1:8000", 1000.5),
        life("pod/default/a", "10.0.0.2:8000", 1000.0),
        life("pod/default/b", "10.0.0.1:8000", 1000.0),
        life("pod/default/a#1", "10.0.0.1:8000", 1000.0),
    }

    assert len(lives) == 6
    assert all(0 <= each < 2**64 for each in lives)


def test_everybody_who_sees_a_statement_names_the_same_life() -> None:
    engine = Engine("pod/default/a", "10.0.0.1:8000", 0.5, started=1763855000.25)

    assert engine.life == life("pod/default/a", "10.0.0.1:8000", 1763855000.25)
    (heard,) = live.decode(live.encode([engine]))
    assert isinstance(heard, Engine)
    assert heard.life == engine.life
