import json

import pytest

from extproc.rejection import REASONS, Rejection


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_openai_shape_and_names_itself(reason: str) -> None:
    rejection = Rejection(reason, "what to do", "field")

    error = json.loads(rejection.body())["error"]

    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == "what to do"
    assert ("x-kvoy-reason", reason) in rejection.headers()
    assert ("content-type", "application/json") in rejection.headers()
    assert 400 <= rejection.status <= 599


def test_a_503_says_when_to_come_back() -> None:
    assert ("retry-after", "1") in Rejection("no-ready-pod", "m").headers()
    assert "retry-after" not in dict(Rejection("unknown-model", "m").headers())


def test_code_defaults_to_the_reason() -> None:
    assert json.loads(Rejection("missing-model", "m").body())["error"]["code"] == "missing_model"
    assert json.loads(Rejection("unknown-model", "m", code="model_not_found").body())["error"]["code"] == (
        "model_not_found"
    )
