import msgspec
import pytest

from benchmarks.engine.faults import (
    Die,
    Faults,
    Hang,
    LoseEvents,
    NoParams,
    NoTokens,
    Refuse,
    Reset,
    SlowStart,
    Status,
)


def test_a_fault_hits_as_often_as_it_says_then_the_next_one() -> None:
    faults = Faults()
    faults.replace([Status(503, times=2), Reset(3, times=1)], now=0.0)
    assert [faults.take() for _ in range(5)] == [*[Status(503, times=2)] * 2, Reset(3, times=1), None, None]


def test_a_fault_without_times_hits_until_it_is_replaced() -> None:
    faults = Faults()
    faults.replace([Hang()], now=0.0)
    assert [faults.take() for _ in range(3)] == [Hang()] * 3
    faults.replace([], now=0.0)
    assert faults.take() is None


def test_a_slow_start_ends_by_itself() -> None:
    faults = Faults()
    assert faults.is_ready(0.0)
    assert faults.replace([SlowStart(5)], now=10.0) is None
    assert not faults.is_ready(14.9)
    assert faults.is_ready(15.0)


def test_replacing_ends_a_slow_start() -> None:
    faults = Faults()
    faults.replace([SlowStart(5)], now=10.0)
    faults.replace([], now=11.0)
    assert faults.is_ready(11.0)


def test_the_time_to_refuse_is_told() -> None:
    assert Faults().replace([Refuse(2), Refuse(3), Status(500)], now=0.0) == 3


def test_batches_of_events_are_lost_as_often_as_told() -> None:
    faults = Faults()
    assert not faults.loses_events()
    faults.replace([LoseEvents(1), Status(500), LoseEvents(1)], now=0.0)
    assert [faults.loses_events() for _ in range(3)] == [True, True, False]
    faults.replace([LoseEvents(1)], now=0.0)
    faults.replace([], now=0.0)
    assert not faults.loses_events()


def test_tokens_are_refused_until_told_otherwise() -> None:
    faults = Faults()
    assert faults.tokens_refused is None
    faults.replace([NoTokens(503)], now=0.0)
    assert faults.tokens_refused == 503
    assert faults.take() is None
    faults.replace([], now=1.0)
    assert faults.tokens_refused is None


def test_every_kind_can_be_written_and_read() -> None:
    given = [Status(429, times=1), Hang(2), Reset(), SlowStart(1.5), Refuse(2), LoseEvents(3), NoTokens(500)]
    given += [Die(1), NoParams(2)]
    assert Faults.parse(msgspec.json.encode(given)) == given


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"kind":"status","status":503}',
        '[{"kind":"status"}]',
        '[{"kind":"status","status":200}]',
        '[{"kind":"status","status":503,"times":0}]',
        '[{"kind":"status","status":503,"after":1}]',
        '[{"kind":"explode"}]',
        '[{"kind":"hang","after_tokens":-1}]',
        '[{"kind":"refuse","seconds":0}]',
        '[{"kind":"slow_start"}]',
        '[{"kind":"lose_events","batches":0}]',
        '[{"kind":"no_tokens","status":200}]',
        '[{"kind":"no_params","times":0}]',
        '[{"kind":"die","after_tokens":-1}]',
        "[" * 20_000,
    ],
)
def test_a_wrong_fault_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"faults: .*expected a list such as"):
        Faults.parse(text)


def test_parameters_are_omitted_as_often_as_told() -> None:
    faults = Faults()
    assert not faults.omits_params()
    faults.replace([NoParams(times=2)], now=0.0)
    assert [faults.omits_params() for _ in range(3)] == [True, True, False]
    faults.replace([NoParams()], now=0.0)
    assert all(faults.omits_params() for _ in range(100))
    assert faults.take() is None
    faults.replace([], now=1.0)
    assert not faults.omits_params()
