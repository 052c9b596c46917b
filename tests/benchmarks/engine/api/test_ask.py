import pytest

from benchmarks.engine.api.ask import Ask, Choice, plan, resolve
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.batch import Job, Prefilled
from benchmarks.engine.models import Adapter, Models
from benchmarks.engine.settings import EngineSettings
from benchmarks.engine.tokens import encode

SETTINGS = EngineSettings(name="pod-a", model="tiny", max_model_len=4096, reply_tokens=20)
MODELS = Models("tiny", ["sql"])


def planned(**fields) -> tuple[int, str]:
    (work,) = plan(Ask([encode("hello there")], "tiny", **fields), MODELS, SETTINGS)
    return len(work.output), work.reason


def refused(status: int, param: str, **fields) -> ApiError:
    ask = {"prompts": [encode("hello there")], "model": "tiny", **fields}
    with pytest.raises(ApiError) as caught:
        plan(Ask(**ask), MODELS, SETTINGS)
    assert (caught.value.status, caught.value.param) == (status, param)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "length", "reason"),
    [
        ({}, 20, "stop"),
        ({"max_tokens": 5}, 5, "length"),
        ({"max_tokens": 20}, 20, "stop"),
        ({"max_tokens": 50}, 20, "stop"),
        ({"max_tokens": 50, "min_tokens": 30}, 30, "stop"),
        ({"max_tokens": 10, "min_tokens": 30}, 10, "length"),
        ({"max_tokens": 50, "ignore_eos": True}, 50, "length"),
        ({"ignore_eos": True}, 4093, "length"),
    ],
)
def test_the_length_of_an_answer(fields, length: int, reason: str) -> None:
    assert planned(**fields) == (length, reason)


def test_a_prompt_near_the_limit_cuts_the_answer() -> None:
    (work,) = plan(Ask([encode("x" * 4 * 4090)], "tiny"), MODELS, SETTINGS)
    assert (len(work.output), work.reason) == (6, "length")


def test_each_prompt_gets_its_choices_in_order() -> None:
    works = plan(Ask([encode("a"), encode("b")], "sql", n=2, salt="s"), MODELS, SETTINGS)
    assert [work.prompt for work in works] == [encode("a")] * 2 + [encode("b")] * 2
    assert {(work.adapter, work.salt) for work in works} == {(Adapter("sql", 1), "s")}


def test_errors_read_as_vllms(captures) -> None:
    assert refused(404, "model", model="nope").body() == captures["err_model"].json
    assert refused(400, "temperature", temperature=-3.0).body() == captures["err_badrange"].json
    assert refused(400, "max_tokens", max_tokens=100_000).body() == captures["err_maxtok"].json
    too_long = [encode("x" * 4 * 4097)]
    assert refused(400, "input_tokens", prompts=too_long).body() == captures["err_toolong"].json


@pytest.mark.parametrize("n", [0, -1, 129])
def test_the_number_of_choices_is_bounded(n: int) -> None:
    refused(400, "n", n=n)


def test_other_values_out_of_range_are_refused() -> None:
    refused(400, "max_tokens", max_tokens=0)
    refused(400, "temperature", temperature=float("nan"))
    refused(400, "input_tokens", max_tokens=4094)


def test_no_model_is_the_base() -> None:
    assert resolve(None, MODELS) is None
    assert resolve("tiny", MODELS) is None
    assert resolve("sql", MODELS) == Adapter("sql", 1)


def test_a_choice_knows_its_text() -> None:
    (work,) = plan(Ask([encode("a")], None), MODELS, SETTINGS)
    prefilled = Prefilled(Job(0, work.prompt, work.output), 0.0, 0.0, 0.0, 0, 0)
    assert Choice(work, prefilled).text.startswith("pod-a says ")
