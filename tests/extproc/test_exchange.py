from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.exchange import (
    CHUNK_BYTES,
    AskForBody,
    BodyMode,
    BodyReceived,
    Decide,
    Exchange,
    HeadersReceived,
    LocalAnswer,
    OutOfOrder,
    PassTrailers,
    RouteOnBody,
    RouteOnHeaders,
    Routing,
    SendChunk,
    TrailersReceived,
)
from extproc.testing import a_head, a_placement, play

PLACEMENT = a_placement("10.0.0.1:8000")
ROUTING = Routing("model/default/s", PLACEMENT, 1, body=None)
EDITED = Routing("model/default/s", PLACEMENT, 1, body=b"edited")
REFUSAL = LocalAnswer(404, (), b"{}")
DUPLEX = BodyMode.FULL_DUPLEX
UPLOAD = a_head("/v1/audio/transcriptions")


def test_a_buffered_body_is_asked_for_and_decided_on() -> None:
    asked, answers = play(EDITED, a_head(), b"body")

    assert asked == [Decide(a_head(), b"body")]
    assert answers == [AskForBody(), RouteOnBody(EDITED)]


def test_a_buffered_body_followed_by_trailers_is_whole_though_not_last() -> None:
    exchange = Exchange(100)
    exchange.receive(HeadersReceived(a_head(), last=False, mode=BodyMode.BUFFERED))

    assert exchange.receive(BodyReceived(b"body", last=False)) == Decide(a_head(), b"body")


def test_a_request_without_a_body_is_decided_on_its_headers() -> None:
    get = a_head("/health", method="GET")

    assert play(ROUTING, get) == ([Decide(get, None)], [RouteOnHeaders(ROUTING, BodyMode.BUFFERED)])


def test_a_parsed_path_with_an_empty_body_has_it_judged() -> None:
    assert play(REFUSAL, a_head())[0] == [Decide(a_head(), b"")]


def test_an_unparsed_path_never_shows_its_body() -> None:
    exchange = Exchange(100)

    step = exchange.receive(HeadersReceived(UPLOAD, last=False, mode=BodyMode.BUFFERED))

    assert step == Decide(UPLOAD, None)
    assert list(exchange.decided(ROUTING)) == [RouteOnHeaders(ROUTING, BodyMode.BUFFERED)]
    assert exchange.done


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/generate"])
def test_a_body_that_may_be_json_is_shown_on_any_path(method: str, path: str) -> None:
    head = replace(a_head(path, method=method), json=True)

    assert play(ROUTING, head, b"{}") == ([Decide(head, b"{}")], [AskForBody(), RouteOnBody(ROUTING)])
    assert play(EDITED, head, b"{", b"}", mode=DUPLEX) == (
        [Decide(head, b"{}")],
        [RouteOnHeaders(EDITED, DUPLEX), SendChunk(b"edited", last=True)],
    )


@pytest.mark.parametrize("mode", BodyMode)
def test_an_unparsed_path_without_a_body_is_decided_on_its_headers(mode: BodyMode) -> None:
    head = replace(a_head("/reset_prefix_cache"), json=True)

    assert play(ROUTING, head, mode=mode) == ([Decide(head, None)], [RouteOnHeaders(ROUTING, mode)])


@pytest.mark.parametrize("mode", BodyMode)
def test_a_get_keeps_its_body_to_itself(mode: BodyMode) -> None:
    head = replace(a_head("/metrics", method="GET"), json=True)
    exchange = Exchange(100)

    assert exchange.receive(HeadersReceived(head, last=False, mode=mode)) == Decide(head, None)


def test_a_parsed_path_is_parsed_whatever_its_type_says() -> None:
    assert not a_head().json
    assert play(ROUTING, a_head(), b"body")[0] == [Decide(a_head(), b"body")]


def test_full_duplex_holds_the_headers_back_until_the_body_is_whole() -> None:
    asked, answers = play(ROUTING, a_head(), b"bo", b"dy", b"", mode=DUPLEX)

    assert asked == [Decide(a_head(), b"body")]
    assert answers == [RouteOnHeaders(ROUTING, DUPLEX), SendChunk(b"body", last=True)]


def test_full_duplex_sends_the_edited_body() -> None:
    assert play(EDITED, a_head(), b"body", mode=DUPLEX)[1][1:] == [SendChunk(b"edited", last=True)]


def test_full_duplex_passes_an_unparsed_body_chunk_by_chunk() -> None:
    asked, answers = play(ROUTING, UPLOAD, b"one", b"two", mode=DUPLEX)

    assert asked == [Decide(UPLOAD, None)]
    assert answers == [
        RouteOnHeaders(ROUTING, DUPLEX),
        SendChunk(b"one", last=False),
        SendChunk(b"two", last=True),
    ]


def test_full_duplex_answers_trailers_last() -> None:
    asked, answers = play(ROUTING, a_head(), b"body", mode=DUPLEX, ending=(TrailersReceived(),))

    assert asked == [Decide(a_head(), b"body")]
    assert answers == [RouteOnHeaders(ROUTING, DUPLEX), SendChunk(b"body", last=False), PassTrailers()]


def test_full_duplex_passes_trailers_of_an_unparsed_body() -> None:
    _, answers = play(ROUTING, UPLOAD, b"one", mode=DUPLEX, ending=(TrailersReceived(),))

    assert answers[1:] == [SendChunk(b"one", last=False), PassTrailers()]


def test_full_duplex_bounds_the_body_it_collects() -> None:
    asked, answers = play(ROUTING, a_head(), b"12345", b"678901", mode=DUPLEX, body_limit=10)

    assert asked == []
    assert [answer.status for answer in answers if isinstance(answer, LocalAnswer)] == [413]


@pytest.mark.parametrize("mode", BodyMode)
def test_a_local_answer_ends_the_exchange(mode: BodyMode) -> None:
    _, answers = play(REFUSAL, a_head(), b"body", mode=mode)

    assert answers[-1] is REFUSAL


@given(st.binary(max_size=300_000), st.lists(st.integers(0, 300_000), max_size=6))
def test_any_cutting_of_the_body_gives_the_same_decision_and_the_same_body(
    body: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in pairwise(edges)]

    asked, answers = play(ROUTING, a_head(), *chunks, mode=DUPLEX)
    sent = [answer for answer in answers if isinstance(answer, SendChunk)]

    assert asked == [Decide(a_head(), body)]
    assert b"".join(chunk.chunk for chunk in sent) == body
    assert all(len(chunk.chunk) <= CHUNK_BYTES for chunk in sent)
    assert [chunk.last for chunk in sent] == [False] * (len(sent) - 1) + [True]


HEADERS = HeadersReceived(a_head(), last=False, mode=BodyMode.BUFFERED)


@pytest.mark.parametrize(
    "events",
    [
        [BodyReceived(b"", last=True)],
        [TrailersReceived()],
        [HEADERS, HEADERS],
        [HEADERS, BodyReceived(b"", last=True), BodyReceived(b"", last=True)],
    ],
)
def test_messages_out_of_order_are_refused(
    events: list[HeadersReceived | BodyReceived | TrailersReceived],
) -> None:
    exchange = Exchange(100)
    for event in events[:-1]:
        exchange.receive(event)

    with pytest.raises(OutOfOrder):
        exchange.receive(events[-1])


def test_a_decision_nobody_asked_for_is_refused() -> None:
    with pytest.raises(OutOfOrder):
        list(Exchange(100).decided(ROUTING))
