"""Token counts, as chat and completions report them."""

from collections.abc import Sequence

import msgspec

from benchmarks.engine.api.ask import Choice
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.runtime import Work


class StreamOptions(msgspec.Struct):
    """Where a streamed answer reports usage."""

    include_usage: bool | None = False
    """In a chunk of its own at the end."""
    continuous_usage_stats: bool | None = False
    """And in every other chunk."""

    @property
    def on_every_chunk(self) -> bool:
        return bool(self.include_usage and self.continuous_usage_stats)


def options_of(given: StreamOptions | None, stream: bool | None) -> StreamOptions:
    """The options in force; ApiError 400 if they are given for a plain answer, as in vLLM."""
    if given is not None and not stream:
        message = "Stream options can only be defined when `stream=True`."
        raise ApiError(400, message, "stream_options")
    return given or StreamOptions()


def total(choices: Sequence[Choice], n: int, with_cached: bool, with_created: bool) -> dict[str, object]:
    """Usage of a plain answer with ``n`` choices per prompt."""
    details = {
        "cached_tokens": _cached(choices, n),
        "created_cache_tokens": _created(choices, n) if with_created else None,
        "multimodal_tokens": None,
    }
    return {
        **_counts(choices, n),
        "prompt_tokens_details": details if with_cached else None,
        "completion_tokens_details": None,
    }


def final(choices: Sequence[Choice], n: int, with_cached: bool, with_created: bool) -> dict[str, object]:
    """Usage at the end of a stream: as `total` without the nulls."""
    if not with_cached:
        return _counts(choices, n)
    details = {"cached_tokens": _cached(choices, n)}
    if with_created:
        details["created_cache_tokens"] = _created(choices, n)
    return {**_counts(choices, n), "prompt_tokens_details": details}


def so_far(work: Work, sent: int) -> dict[str, object]:
    """Usage in the middle of a stream, of one choice."""
    prompt = len(work.prompt)
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + sent,
        "completion_tokens": sent,
        "completion_tokens_details": None,
    }


def _counts(choices: Sequence[Choice], n: int) -> dict[str, object]:
    prompt = sum(len(choice.work.prompt) for choice in choices[::n])
    answer = sum(len(choice.work.output) for choice in choices)
    return {"prompt_tokens": prompt, "total_tokens": prompt + answer, "completion_tokens": answer}


def _cached(choices: Sequence[Choice], n: int) -> int:
    return sum(choice.prefilled.reused for choice in choices[::n])


def _created(choices: Sequence[Choice], n: int) -> int:
    return sum(choice.prefilled.created for choice in choices[::n])
