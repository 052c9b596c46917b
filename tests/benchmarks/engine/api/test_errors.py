import pytest

from benchmarks.engine.api import errors
from benchmarks.engine.api.errors import ApiError


def test_an_unknown_model_reads_as_vllms(captures) -> None:
    assert errors.unknown_model("nope", "tiny").body() == captures["err_model"].json


def test_a_bad_value_reads_as_vllms(captures) -> None:
    error = errors.bad_value("temperature", -3.0, "temperature must be non-negative, got -3.0.")
    assert error.body() == captures["err_badrange"].json


def test_a_full_queue_is_unavailable() -> None:
    body = errors.queue_full().body()["error"]
    assert (body["code"], body["type"]) == (503, "Service Unavailable")
    assert "currently busy" in body["message"]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 502, 503, 504])
def test_any_status_has_a_type(status: int) -> None:
    body = ApiError(status, "x").body()["error"]
    assert (body["code"], bool(body["type"])) == (status, True)
