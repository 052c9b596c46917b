from array import array

import pytest

from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.models import Adapter
from benchmarks.engine.runtime import Work
from benchmarks.engine.transfer.fields import TransferFields
from benchmarks.engine.transfer.part import Asked, check_one_prompt, check_prompt_only, fingerprint, root


def a_work(max_tokens: int = 1, token: int = 7, **more: object) -> Work:
    return Work(array("I", [token] * 9), array("I", [0]), "length", max_tokens, **more)


def asked(*works: Work, stream: bool = False) -> Asked:
    return Asked("chatcmpl-r", TransferFields(), works, stream)


def test_a_prefill_is_one_token_of_one_plain_answer() -> None:
    check_prompt_only(asked(a_work()))
    for wrong, field in (
        (asked(a_work(), stream=True), "stream"),
        (asked(a_work(), a_work()), "n"),
        (asked(a_work(2)), "max_tokens"),
    ):
        with pytest.raises(ApiError) as refused:
            check_prompt_only(wrong)
        assert (refused.value.status, refused.value.param) == (400, field)


def test_a_transfer_is_of_one_prompt() -> None:
    check_one_prompt(asked(a_work(), a_work()))
    with pytest.raises(ApiError, match="several"):
        check_one_prompt(asked(a_work(), a_work(token=8)))


def test_everything_that_a_cache_depends_on_tells_prompts_apart() -> None:
    works = [a_work(), a_work(token=8), a_work(salt="s"), a_work(adapter=Adapter("s", 1))]
    assert len({fingerprint(root(work), work.prompt) for work in works}) == 4
    assert fingerprint(root(a_work()), a_work().prompt) == fingerprint(root(a_work(5)), a_work(5).prompt)


def test_a_body_without_parameters_has_none() -> None:
    assert asked(a_work()).params == {}
