import pytest

from benchmarks.handoff.fleets import P2D2, TOGETHER
from benchmarks.handoff.loads import Load
from benchmarks.handoff.play import Answer, BadAnswer, Played, play


def test_an_answer_is_measured_from_when_its_request_left() -> None:
    answer = Answer(10.0, [10.5, 10.75, 11.75])
    assert (answer.ttft_s, answer.gaps_s, answer.duration_s) == (0.5, [0.25, 1.0], 1.75)


def test_tokens_count_while_requests_are_sent() -> None:
    load = Load("some", 8, 3, (TOGETHER,), rate=1.0)
    answers = [Answer(10.0, [10.5, 11.0, 13.9]), Answer(11.0, [13.5, 14.0, 15.0])]
    assert Played(TOGETHER, load, answers, began=10.0, seconds=4.0).tokens_per_s == 1.0


@pytest.mark.parametrize("pace", [{"rate": 20.0}, {"clients": 2}])
async def test_every_fleet_answers_the_whole_load(pace) -> None:
    load = Load("few", 64, 4, (TOGETHER, P2D2), **pace)

    together, apart = await play(load, 0.3, seed=1)

    assert (together.fleet, apart.fleet) == (TOGETHER, P2D2)
    assert together.answers
    assert apart.answers
    if load.rate:
        assert len(together.answers) == len(apart.answers)
    for answer in (*together.answers, *apart.answers):
        assert len(answer.tokens) == 4
        assert answer.tokens == sorted(answer.tokens)
        assert answer.ttft_s > 0


async def test_an_answer_that_is_no_good_ends_it() -> None:
    load = Load("too long", 64, 1_000_000, (TOGETHER,), clients=1)
    with pytest.RaisesGroup(pytest.RaisesGroup(pytest.RaisesExc(BadAnswer, match="status 400"))):
        await play(load, 0.1, seed=1)
