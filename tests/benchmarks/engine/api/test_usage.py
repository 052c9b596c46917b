import pytest

from benchmarks.engine.api import usage
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.api.usage import StreamOptions, options_of


def test_a_prompt_counts_once_for_all_its_choices(choice) -> None:
    counts = usage.total([choice(), choice()], n=2, with_cached=True, with_created=True)
    assert (counts["prompt_tokens"], counts["completion_tokens"], counts["total_tokens"]) == (122, 8, 130)
    assert counts["prompt_tokens_details"]["cached_tokens"] == 96


def test_prompts_add_up(choice) -> None:
    counts = usage.total(
        [choice(cached=96), choice(cached=0, created=96)], n=1, with_cached=True, with_created=True
    )
    assert counts["prompt_tokens"] == 244
    assert counts["prompt_tokens_details"] == {
        "cached_tokens": 96,
        "created_cache_tokens": 96,
        "multimodal_tokens": None,
    }


def test_usage_on_every_chunk_needs_both_options() -> None:
    assert StreamOptions(True, True).on_every_chunk
    assert not StreamOptions(False, True).on_every_chunk
    assert not StreamOptions(True, False).on_every_chunk


def test_stream_options_need_a_stream() -> None:
    assert options_of(StreamOptions(True), stream=True).include_usage
    assert not options_of(None, stream=False).include_usage
    with pytest.raises(ApiError, match="stream=True"):
        options_of(StreamOptions(), stream=False)


def test_the_middle_of_a_stream_counts_what_was_sent(choice) -> None:
    assert usage.so_far(choice().work, 3)["total_tokens"] == 125


def test_the_end_of_a_stream_has_no_nulls(choice) -> None:
    assert usage.final([choice()], 1, with_cached=True, with_created=False)["prompt_tokens_details"] == {
        "cached_tokens": 96
    }


def test_without_the_option_nothing_says_what_was_cached(choice) -> None:
    plain = usage.total([choice(cached=96)], 1, with_cached=False, with_created=True)
    assert (plain["prompt_tokens"], plain["prompt_tokens_details"]) == (122, None)
    assert "prompt_tokens_details" not in usage.final([choice()], 1, with_cached=False, with_created=True)
