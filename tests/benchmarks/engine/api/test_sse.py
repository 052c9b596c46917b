from benchmarks.engine.api import sse


def test_events_end_with_an_empty_line() -> None:
    assert sse.data({"a": "x\ny"}) == b'data: {"a":"x\\ny"}\n\n'
    assert sse.event("ping", {}) == b"event: ping\ndata: {}\n\n"
    assert sse.DONE == b"data: [DONE]\n\n"
