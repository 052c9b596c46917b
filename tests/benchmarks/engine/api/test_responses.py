import json

from benchmarks.engine.api.prompts import Message
from benchmarks.engine.api.responses import Responses, ResponsesRequest
from benchmarks.engine.tokens import decode


def a_request(given="hi", **fields) -> Responses:
    return Responses(ResponsesRequest(given, **fields))


def prompt_of(request: Responses) -> str:
    return decode(request.ask.prompts[0])


def test_input_is_a_text_or_a_conversation() -> None:
    assert prompt_of(a_request("hi")) == prompt_of(a_request([Message("user", "hi")]))


def test_instructions_come_first() -> None:
    assert prompt_of(a_request(instructions="be brief")).startswith("<|im_start|>system\nbe brief")


def test_a_plain_answer_is_complete(envelope, choice) -> None:
    given = a_request().whole(envelope, [choice(reason="stop")])
    assert (given["object"], given["status"], given["incomplete_details"]) == ("response", "completed", None)
    assert given["output"][0]["content"][0]["text"] == "pod-a says hello"
    assert given["usage"]["input_tokens_details"] == {"cached_tokens": 96}
    assert given["usage"]["total_tokens"] == 126


def test_a_cut_answer_says_so(envelope, choice) -> None:
    given = a_request(max_output_tokens=4).whole(envelope, [choice(reason="length")])
    assert (given["status"], given["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_a_stream_is_a_numbered_sequence_of_named_events(envelope, choice) -> None:
    answer = choice(reason="stop")
    writer = a_request(stream=True).transcript(envelope, [answer.work])
    raw = writer.opening(answer.prefilled) + writer.token(0, "pod-", last=True) + writer.closing([answer])
    events = [event.split("\n") for event in raw.decode().strip().split("\n\n")]
    bodies = [json.loads(data.removeprefix("data: ")) for _, data in events]
    assert [name.removeprefix("event: ") for name, _ in events] == [body["type"] for body in bodies]
    assert [body["sequence_number"] for body in bodies] == list(range(9))
    assert (bodies[0]["type"], bodies[-1]["type"]) == ("response.created", "response.completed")
    assert bodies[4]["delta"] == "pod-"
    assert bodies[-1]["response"]["usage"]["output_tokens"] == 4
