import dataclasses
import json

import pytest

from benchmarks.engine.api.messages import Messages, MessagesRequest
from benchmarks.engine.api.prompts import Message
from benchmarks.engine.tokens import decode


def a_request(**fields) -> Messages:
    return Messages(MessagesRequest("tiny", [Message("user", "hi")], 16, **fields))


def test_the_system_prompt_comes_first() -> None:
    (prompt,) = a_request(system="be brief").ask.prompts
    assert decode(prompt).startswith("<|im_start|>system\nbe brief")
    (prompt,) = a_request().ask.prompts
    assert "system" not in decode(prompt)


@pytest.mark.parametrize(("reason", "named"), [("stop", "end_turn"), ("length", "max_tokens")])
def test_a_plain_answer_is_anthropics(envelope, choice, reason: str, named: str) -> None:
    given = a_request().whole(envelope, [choice(reason=reason)])
    assert (given["type"], given["role"], given["model"], given["stop_reason"]) == (
        "message", "assistant", "tiny", named,
    )  # fmt: skip
    assert given["content"] == [{"type": "text", "text": "pod-a says hello"}]
    assert given["usage"]["input_tokens"] + given["usage"]["cache_read_input_tokens"] == 122


def test_a_stream_is_anthropics_sequence_of_named_events(envelope, choice) -> None:
    writer = a_request(stream=True).transcript(envelope, [choice().work])
    raw = writer.opening(choice().prefilled) + writer.token(0, "pod-", last=True) + writer.closing([choice()])
    events = [event.split("\n") for event in raw.decode().strip().split("\n\n")]
    names = [name.removeprefix("event: ") for name, _ in events]
    bodies = [json.loads(data.removeprefix("data: ")) for _, data in events]
    assert names == [body["type"] for body in bodies]
    assert names == [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip
    assert bodies[2]["delta"]["text"] == "pod-"
    assert bodies[4]["usage"]["output_tokens"] == 4


def test_without_details_of_the_cache_all_of_the_prompt_is_input(envelope, choice) -> None:
    silent = dataclasses.replace(envelope, cache_details=False)
    answer = choice(cached=96)
    usage = {"input_tokens": 122, "output_tokens": 4}
    assert a_request().whole(silent, [answer])["usage"] == usage
    transcript = a_request().transcript(silent, [answer.work])
    assert b'"usage":{"input_tokens":122,"output_tokens":0}' in transcript.opening(answer.prefilled)
    assert b'"usage":{"input_tokens":122,"output_tokens":4}' in transcript.closing([answer])
