import json
from dataclasses import replace

import msgspec
import pytest

from extproc.tokens.question import Parts, Question


def asked(**fields: object) -> Question:
    return Question("chat", Parts.of(json.dumps(fields).encode()), "m", "t")


def test_parts_are_slices_of_the_body_and_null_says_nothing():
    given = Parts.of(b'{"model":"m","messages":[ {"a": 1} ],"tools":null}').given()

    assert {name: bytes(raw) for name, raw in given.items()} == {"messages": b'[ {"a": 1} ]'}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages":'])
def test_a_body_that_is_no_object_is_an_error(body):
    with pytest.raises(msgspec.DecodeError):
        Parts.of(body)


def test_equal_questions_have_one_digest_whichever_engine_is_asked():
    question = asked(messages=[], model="ignored")

    assert question.digest() == replace(asked(messages=[]), engines=("http://a",)).digest()


@pytest.mark.parametrize(
    "other",
    [
        replace(asked(messages=[1]), model="other"),
        replace(asked(messages=[1]), tokenizer="other"),
        replace(asked(messages=[1]), kind="completion"),
        asked(messages=[1], tools=[]),
        asked(messages=[1, 1]),
        asked(documents=[1]),
    ],
)
def test_what_changes_the_answer_changes_the_digest(other):
    assert other.digest() != asked(messages=[1]).digest()


def test_parts_do_not_run_into_each_other():
    assert asked(messages="ab", tools="c").digest() != asked(messages="a", tools="bc").digest()


def test_size_counts_the_prompts_fields_only():
    assert asked(messages=[1], model="x" * 100).size() == 3
