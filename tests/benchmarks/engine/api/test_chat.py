import json

import pytest

from benchmarks.engine.api.chat import Chat, ChatRequest
from benchmarks.engine.api.errors import ApiError
from benchmarks.engine.api.prompts import Message
from benchmarks.engine.api.usage import StreamOptions


def a_chat(**fields) -> Chat:
    return Chat.of(ChatRequest(messages=[Message("user", "hi")], **fields))


def events(raw: bytes) -> list[dict]:
    assert raw.endswith(b"\n\n")
    return [json.loads(event[6:]) for event in raw.decode().split("\n\n") if event.startswith("data: {")]


def streamed(chat: Chat, envelope, choice) -> list[dict]:
    writer = chat.transcript(envelope, [choice.work])
    raw = writer.opening(choice.prefilled)
    for number, text in enumerate(("pod-", "a sa", "ys h", "ello")):
        raw += writer.token(0, text, last=number == 3)
    raw += writer.closing([choice])
    assert raw.endswith(b"data: [DONE]\n\n")
    return events(raw)


@pytest.mark.parametrize(("name", "cached", "created"), [("chat1", 0, 96), ("chat2", 96, 0)])
def test_a_plain_answer_is_shaped_like_vllms(
    captures, same_shape, envelope, choice, name, cached, created
) -> None:
    captured = captures[name].json
    given = a_chat().whole(envelope, [choice("x" * 32, cached, created)])
    assert same_shape(given, captured)
    assert given["usage"] == captured["usage"]
    assert given["object"] == captured["object"]
    assert given["choices"][0]["finish_reason"] == captured["choices"][0]["finish_reason"]


def test_a_streamed_answer_is_chunk_for_chunk_shaped_like_vllms(
    captures, same_shape, envelope, choice
) -> None:
    captured = captures["chat_stream"].events
    given = streamed(a_chat(stream=True, stream_options=StreamOptions(True, True)), envelope, choice())
    assert same_shape(given, captured)
    assert [chunk["usage"] for chunk in given] == [chunk["usage"] for chunk in captured]


def test_a_stream_without_options_has_no_usage(envelope, choice) -> None:
    given = streamed(a_chat(stream=True), envelope, choice())
    assert all("usage" not in chunk and chunk["choices"] for chunk in given)


def test_a_stream_with_usage_has_it_in_the_last_chunk_only(envelope, choice) -> None:
    *chunks, last = streamed(a_chat(stream=True, stream_options=StreamOptions(True)), envelope, choice())
    assert all("usage" not in chunk for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4


def test_choices_are_told_apart_by_their_index(envelope, choice) -> None:
    writer = a_chat(stream=True, n=2).transcript(envelope, [choice().work, choice().work])
    roles = events(writer.opening(choice().prefilled))
    assert [chunk["choices"][0]["index"] for chunk in roles] == [0, 1]
    (chunk,) = events(writer.token(1, "x", last=False))
    assert chunk["choices"][0]["index"] == 1


def test_the_newer_name_of_the_limit_wins() -> None:
    assert a_chat(max_tokens=5).ask.max_tokens == 5
    assert a_chat(max_tokens=5, max_completion_tokens=7).ask.max_tokens == 7


def test_every_field_reaches_the_engine() -> None:
    ask = a_chat(
        model="m", n=2, min_tokens=3, ignore_eos=True, temperature=0.5, cache_salt="s", stream=True
    ).ask
    assert (ask.model, ask.n, ask.min_tokens, ask.ignore_eos) == ("m", 2, 3, True)
    assert (ask.temperature, ask.salt, ask.stream) == (0.5, "s", True)


def test_stream_options_without_a_stream_are_refused() -> None:
    with pytest.raises(ApiError, match="stream=True"):
        a_chat(stream_options=StreamOptions(True))
