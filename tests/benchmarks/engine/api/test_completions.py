import json

from benchmarks.engine.api.completions import DEFAULT_MAX_TOKENS, Completion, CompletionRequest
from benchmarks.engine.api.usage import StreamOptions
from benchmarks.engine.tokens import encode


def a_completion(prompt="hello", **fields) -> Completion:
    return Completion.of(CompletionRequest(prompt, **fields))


def test_a_plain_answer_is_shaped_like_vllms(captures, same_shape, envelope, choice) -> None:
    given = a_completion().whole(envelope, [choice()])
    assert same_shape(given, captures["completion_with_token_ids"].json)
    assert given["object"] == captures["completion_with_token_ids"].json["object"]


def test_token_ids_come_when_asked_for(captures, same_shape, envelope, choice) -> None:
    given = a_completion(return_token_ids=True).whole(envelope, [choice()])
    captured = captures["return_token_ids"].json
    assert list(given["choices"][0]) == list(captured["choices"][0])
    assert given["choices"][0]["token_ids"] == encode("pod-a says hello").tolist()
    assert len(given["choices"][0]["prompt_token_ids"]) == 122


def test_the_default_limit_is_openais() -> None:
    assert a_completion().ask.max_tokens == DEFAULT_MAX_TOKENS == 16
    assert a_completion(max_tokens=None).ask.max_tokens is None


def test_choices_are_numbered_across_prompts(envelope, choice) -> None:
    given = a_completion(["a", "b"], n=2).whole(envelope, [choice() for _ in range(4)])
    assert [entry["index"] for entry in given["choices"]] == [0, 1, 2, 3]
    assert given["usage"]["prompt_tokens"] == 244


def test_a_stream_ends_with_usage_and_done(envelope, choice) -> None:
    completion = a_completion(stream=True, stream_options=StreamOptions(True, True))
    writer = completion.transcript(envelope, [choice().work])
    assert writer.opening(choice().prefilled) == b""
    raw = writer.token(0, "pod-", last=False) + writer.token(0, "a", last=True) + writer.closing([choice()])
    assert raw.endswith(b"data: [DONE]\n\n")
    first, second, end = (json.loads(event[6:]) for event in raw.decode().split("\n\n")[:3])
    assert [chunk["choices"][0]["finish_reason"] for chunk in (first, second)] == [None, "length"]
    assert [chunk["usage"]["completion_tokens"] for chunk in (first, second)] == [1, 2]
    assert (end["choices"], end["usage"]["completion_tokens"]) == ([], 4)


def test_a_stream_without_options_has_no_usage(envelope, choice) -> None:
    writer = a_completion(stream=True).transcript(envelope, [choice().work])
    assert b"usage" not in writer.token(0, "x", last=True)
    assert writer.closing([choice()]) == b"data: [DONE]\n\n"


def test_every_field_reaches_the_engine() -> None:
    ask = a_completion(
        [[1], [2]], model="m", n=2, min_tokens=3, ignore_eos=True, temperature=0.5, cache_salt="s"
    ).ask
    assert (len(ask.prompts), ask.model, ask.n, ask.min_tokens, ask.ignore_eos) == (2, "m", 2, 3, True)
    assert (ask.temperature, ask.salt, ask.stream) == (0.5, "s", False)
